-- What happened in a drop, by steps of $2 seconds: units granted, confirmed, and given back, each at the time at which it
-- was written. $3 and $4 bound the ids of its reservations, which grow with time: all drops share the index that is read.
WITH mine AS MATERIALIZED (
    SELECT r.created_at, r.ended_at, r.state, r.quantity, r.order_id FROM reservations r
    WHERE r.id >= $3::uuid AND r.id < $4::uuid AND r.drop_id = $1 AND r.state <> 'void'
)
SELECT s.at, sum(s.granted) AS granted, sum(s.confirmed) AS confirmed, sum(s.cancelled) AS cancelled,
    sum(s.expired) AS expired, sum(s.returned) AS returned
FROM (
    SELECT floor(extract(epoch FROM m.created_at) / $2)::bigint * $2 AS at, m.quantity AS granted, 0 AS confirmed,
        0 AS cancelled, 0 AS expired, 0 AS returned FROM mine m
    UNION ALL
    SELECT floor(extract(epoch FROM o.created_at) / $2)::bigint * $2, 0, m.quantity, 0, 0, 0
    FROM mine m JOIN orders o ON o.id = m.order_id
    UNION ALL
    SELECT floor(extract(epoch FROM m.ended_at) / $2)::bigint * $2, 0, 0,
        CASE m.state WHEN 'cancelled' THEN m.quantity ELSE 0 END, CASE m.state WHEN 'expired' THEN m.quantity ELSE 0 END,
        CASE m.state WHEN 'returned' THEN m.quantity ELSE 0 END
    FROM mine m WHERE m.ended_at IS NOT NULL
) s GROUP BY s.at ORDER BY s.at LIMIT $5
