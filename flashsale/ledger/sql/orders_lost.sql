-- Orders that wait without a job, after $1 seconds in which a job was written or taken away together with them.
SELECT o.id FROM orders o WHERE o.state = 'queued' AND o.queued_at < now() - make_interval(secs => $1) AND NOT EXISTS (
    SELECT 1 FROM pgqueuer j WHERE j.dedupe_key = o.id::text AND j.status IN ('queued', 'picked')
) LIMIT $2
