-- A member's reservations in one drop, the live ones first, each kind newest first.
SELECT * FROM (
    (SELECT r.*, 0 AS place FROM reservations r WHERE r.drop_id = $1 AND r.member = $2 AND r.state IN ('held', 'confirmed')
        ORDER BY r.created_at DESC LIMIT $3)
    UNION ALL
    (SELECT r.*, 1 AS place FROM reservations r WHERE r.member = $2 AND r.drop_id = $1
        AND r.state IN ('cancelled', 'expired', 'returned') ORDER BY r.created_at DESC LIMIT $3)
) r
ORDER BY r.place, r.created_at DESC LIMIT $3
