-- Drop at most $2 lines of the queue's log that are older than $1 seconds. The orders stay.
DELETE FROM pgqueuer_log WHERE id IN (
    SELECT id FROM pgqueuer_log WHERE created < now() - make_interval(secs => $1) ORDER BY created LIMIT $2
)
