-- Live reservations of a drop as the gate keeps them: about $2 pairs of arrays, members and their entries, all entries
-- of a member in the same pair. One hash aggregate without a sort; hashed, because ids may be regularly spaced.
SELECT array_agg(r.member::text) AS members,
    array_agg(concat_ws(E'\t', r.id, r.allocation_id, r.quantity, r.slot, coalesce(r.idempotency_key, ''), r.payload))
        AS entries
FROM reservations r WHERE r.drop_id = $1 AND r.state IN ('held', 'confirmed')
GROUP BY hashint8(r.member) % $2::integer
