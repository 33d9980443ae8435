-- The rehearsal that runs.
SELECT id, drop_id FROM rehearsals WHERE state = 'running'
