-- What each allocation of a drop has left, counted from its live reservations and not from the counter.
SELECT a.id, a.quantity - coalesce(l.quantity, 0) AS free
FROM allocations a
LEFT JOIN (
    SELECT r.allocation_id, sum(r.quantity) AS quantity
    FROM reservations r WHERE r.drop_id = $1 AND r.state IN ('held', 'confirmed') GROUP BY r.allocation_id
) l ON l.allocation_id = a.id
WHERE a.drop_id = $1
