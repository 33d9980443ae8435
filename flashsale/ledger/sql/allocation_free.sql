-- What each allocation of a drop has left, counted from its live reservations and not from the counter.
SELECT a.id, a.quantity - coalesce((SELECT sum(r.quantity) FROM reservations r
    WHERE r.drop_id = a.drop_id AND r.allocation_id = a.id AND r.state IN ('held', 'confirmed')), 0) AS free
FROM allocations a WHERE a.drop_id = $1
