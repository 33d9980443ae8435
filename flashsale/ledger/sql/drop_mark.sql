-- A drop that this transaction has set up waits for its release ($2), or is hidden ($3).
UPDATE drops SET paused = $2, held = $2, hidden = $3 WHERE id = $1
