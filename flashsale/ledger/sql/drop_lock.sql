-- A drop, locked against every other writer.
SELECT id, title, per_member, hold_seconds, epoch, paused, closed, held, fcodes_stopped FROM drops WHERE id = $1 FOR NO KEY UPDATE
