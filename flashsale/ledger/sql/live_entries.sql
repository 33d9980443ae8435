-- What a rebuild copies, as COPY streams it: the member, then the fields of the gate's entry. A returned reservation
-- that keeps its place has no allocation: its unit is elsewhere.
SELECT r.member, r.id, CASE WHEN r.keeps_slot THEN '' ELSE r.allocation_id END, r.quantity, r.slot,
    coalesce(r.idempotency_key, ''), r.payload, coalesce(r.fcode::text, '')
FROM reservations r WHERE r.drop_id = $1 AND (r.state IN ('held', 'confirmed') OR r.keeps_slot)
