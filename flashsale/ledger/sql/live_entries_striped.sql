-- What a rebuild of a striped drop copies, as COPY streams it: the stripe, the member, then the fields of the gate's
-- entry. A reservation whose unit is not at its member's home has two: the claim at home, whose code is followed by
-- "@", and the unit where it is. A returned one that keeps its place has no unit, and its claim no allocation.
SELECT r.home_stripe, r.member, r.id, CASE WHEN r.keeps_slot THEN '' ELSE r.allocation_id END, r.quantity, r.slot,
    coalesce(r.idempotency_key, ''), r.payload,
    coalesce(r.fcode::text, '') || CASE WHEN r.unit_stripe <> r.home_stripe AND NOT r.keeps_slot THEN '@' ELSE '' END
FROM reservations r WHERE r.drop_id = $1 AND (r.state IN ('held', 'confirmed') OR r.keeps_slot)
UNION ALL
SELECT r.unit_stripe, r.member, r.id, r.allocation_id, r.quantity, r.slot, coalesce(r.idempotency_key, ''), r.payload,
    coalesce(r.fcode::text, '')
FROM reservations r WHERE r.drop_id = $1 AND r.state IN ('held', 'confirmed') AND r.unit_stripe <> r.home_stripe
