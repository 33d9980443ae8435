-- A drop's holds and confirmed reservations, in units; and how many holds end within one and five minutes, of the next
-- $2 that end.
SELECT u.held, u.confirmed, e.one AS ending_1m, e.five AS ending_5m
FROM (
    SELECT coalesce(sum(r.quantity) FILTER (WHERE r.state = 'held'), 0) AS held,
        coalesce(sum(r.quantity) FILTER (WHERE r.state = 'confirmed'), 0) AS confirmed
    FROM reservations r WHERE r.drop_id = $1 AND r.state IN ('held', 'confirmed')
) u, (
    SELECT count(*) FILTER (WHERE n.expires_at <= now() + interval '1 minute') AS one, count(*) AS five
    FROM (
        SELECT r.expires_at FROM reservations r
        WHERE r.drop_id = $1 AND r.state = 'held' AND r.expires_at <= now() + interval '5 minutes'
        ORDER BY r.expires_at LIMIT $2
    ) n
) e
