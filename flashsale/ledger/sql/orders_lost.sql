-- The next $2 waiting orders after $1, and whether each has lost its job: it has none though it was queued $3 seconds ago.
SELECT o.id, o.queued_at < now() - make_interval(secs => $3) AND NOT EXISTS (
    SELECT 1 FROM pgqueuer j WHERE j.dedupe_key = o.id::text AND j.status IN ('queued', 'picked')
) AS lost
FROM orders o WHERE o.state = 'queued' AND ($1::uuid IS NULL OR o.id > $1) ORDER BY o.id LIMIT $2
