-- Who spent codes of a batch, and when; by serial, after $2.
SELECT (r.fcode & 4194303)::integer AS serial, r.id, r.member, r.state, r.created_at FROM reservations r
WHERE r.fcode >= $1::bigint << 22 AND r.fcode < ($1 + 1)::bigint << 22 AND r.state IN ('held', 'confirmed', 'returned')
    AND (r.fcode & 4194303) > $2
ORDER BY r.fcode LIMIT $3
