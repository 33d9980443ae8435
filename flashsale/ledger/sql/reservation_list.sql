-- A member's reservations, newest first; before ($2 created_at, $3 id) when given.
SELECT * FROM (
    SELECT r.* FROM drops d JOIN reservations r ON r.drop_id = d.id AND r.member = $1
        AND r.state IN ('held', 'confirmed')
    UNION ALL
    SELECT r.* FROM reservations r WHERE r.member = $1 AND r.state IN ('cancelled', 'expired', 'returned')
) r
WHERE $2::timestamptz IS NULL OR (r.created_at, r.id) < ($2, $3::uuid)
ORDER BY r.created_at DESC, r.id DESC LIMIT $4
