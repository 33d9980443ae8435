-- Live reservations of a drop as the gate keeps them: $2 pairs of arrays, members and their entries.
SELECT array_agg(e.member::text) AS members, array_agg(e.entries) AS entries FROM (
    SELECT r.member,
        string_agg(concat_ws(E'\t', r.id, r.allocation_id, r.quantity, r.slot, coalesce(r.idempotency_key, ''),
            r.payload), E'\n') AS entries
    FROM reservations r WHERE r.drop_id = $1 AND r.state IN ('held', 'confirmed') GROUP BY r.member
) e
GROUP BY e.member % $2
