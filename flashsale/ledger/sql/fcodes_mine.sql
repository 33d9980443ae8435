-- A member's bound codes with what became of them, newest batch first.
SELECT b.*, m.serial, m.note AS code_note, v.serial IS NOT NULL AS code_revoked, r.state, r.id AS reservation_id
FROM fcode_bound m
JOIN fcode_batches b ON b.id = m.batch_id
LEFT JOIN fcode_revoked v ON v.batch_id = m.batch_id AND v.serial = m.serial
LEFT JOIN reservations r ON r.fcode = m.batch_id::bigint << 22 | m.serial AND r.state IN ('held', 'confirmed', 'returned')
WHERE m.member = $1 AND ($2::bigint IS NULL OR m.batch_id::bigint << 22 | m.serial < $2)
ORDER BY m.batch_id DESC, m.serial DESC LIMIT $3
