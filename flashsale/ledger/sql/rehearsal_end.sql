-- A rehearsal that runs has ended; nothing when it had already.
UPDATE rehearsals SET state = $2, ended_at = clock_timestamp() WHERE id = $1 AND state = 'running' RETURNING id
