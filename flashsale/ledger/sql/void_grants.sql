-- Tombstones for grants that nobody committed; returns what stands under each id. (A tombstone that this very statement
-- writes is not seen beside it: it keeps nothing.)
SELECT v.id, v.member, v.state, coalesce((SELECT r.keeps_slot FROM reservations r WHERE r.id = v.id), false) AS keeps_slot
FROM void_grants($1, $2, $3, $4, $5, $6, $7, $8, $9) v
