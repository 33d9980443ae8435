-- When the last hold of a drop ends that is under way, by allocation: until then, units may come back.
SELECT a.id, (SELECT r.expires_at FROM reservations r
    WHERE r.state = 'held' AND r.drop_id = a.drop_id AND r.allocation_id = a.id AND r.expires_at > now()
    ORDER BY r.expires_at DESC LIMIT 1) AS until
FROM allocations a WHERE a.drop_id = $1
