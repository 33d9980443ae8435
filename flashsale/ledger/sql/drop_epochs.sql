-- The epochs of the drops that need looking after: not over for an hour yet, or with units that must go back.
-- The latter are found by hops along the outbox's index: every process asks each second, whatever the outbox holds.
WITH RECURSIVE unreturned (drop_id) AS (
    SELECT '' COLLATE "C"
    UNION ALL
    SELECT (SELECT min(r.drop_id) FROM reservations r WHERE NOT r.gate_released AND r.drop_id > u.drop_id)
    FROM unreturned u WHERE u.drop_id IS NOT NULL
)
SELECT d.id, d.epoch FROM drops d
WHERE EXISTS (SELECT 1 FROM allocations a WHERE a.drop_id = d.id AND a.closes_at > now() - interval '1 hour')
    OR d.id IN (SELECT u.drop_id FROM unreturned u)
