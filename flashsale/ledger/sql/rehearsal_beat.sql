-- A rehearsal that runs says so, and how far it is; nothing when it was ended by somebody else.
UPDATE rehearsals SET beat_at = clock_timestamp(), told = $2::jsonb WHERE id = $1 AND state = 'running' RETURNING id
