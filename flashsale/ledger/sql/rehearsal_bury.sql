-- Rehearsals that have said nothing for $1 seconds have lost their process.
UPDATE rehearsals SET state = 'failed', ended_at = clock_timestamp(),
    told = told || '{"notes": ["The process that ran it is gone."]}'
WHERE state = 'running' AND beat_at < clock_timestamp() - make_interval(secs => $1)
