-- Change a drop that this transaction has locked, under a new epoch.
UPDATE drops SET title = $2, paused = $3, closed = $4, held = $5, fcodes_stopped = $6, epoch = next_epoch(epoch)
WHERE id = $1 RETURNING epoch
