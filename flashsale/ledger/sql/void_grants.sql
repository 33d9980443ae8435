-- Tombstones for grants that nobody committed; returns what stands under each id. (A tombstone that this very statement
-- writes is not seen beside it: it keeps nothing. The limit keeps the planner from reading all reservations at once.)
SELECT v.id, v.member, v.state, coalesce(r.keeps_slot, false) AS keeps_slot, coalesce(r.home_stripe, 0) AS home_stripe,
    coalesce(r.unit_stripe, 0) AS unit_stripe
FROM void_grants($1, $2, $3, $4, $5, $6, $7, $8, $9) v
LEFT JOIN LATERAL (SELECT * FROM reservations r WHERE r.id = v.id LIMIT 1) r ON true
