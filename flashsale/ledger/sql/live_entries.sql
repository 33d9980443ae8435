-- Live reservations of a drop, as COPY streams them: the member, then the fields of the gate's entry.
SELECT r.member, r.id, r.allocation_id, r.quantity, r.slot, coalesce(r.idempotency_key, ''), r.payload
FROM reservations r WHERE r.drop_id = $1 AND r.state IN ('held', 'confirmed')
