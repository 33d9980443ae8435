-- Units by allocation and state, and which of the grants $2 are live, in one snapshot.
SELECT d.epoch, a.id, a.quantity, a.taken,
    coalesce(sum(r.quantity) FILTER (WHERE r.state = 'held'), 0) AS held,
    coalesce(sum(r.quantity) FILTER (WHERE r.state = 'confirmed'), 0) AS confirmed,
    coalesce(array_agg(r.id) FILTER (WHERE r.id = ANY ($2::uuid[])), '{}') AS live
FROM drops d
JOIN allocations a ON a.drop_id = d.id
LEFT JOIN reservations r ON r.drop_id = a.drop_id AND r.allocation_id = a.id AND r.state IN ('held', 'confirmed')
WHERE d.id = $1
GROUP BY d.epoch, a.drop_id, a.id ORDER BY a.position
