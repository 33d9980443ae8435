-- The epochs of the drops that need looking after: not over for an hour yet, or with units that must go back.
SELECT d.id, d.epoch FROM drops d
WHERE EXISTS (SELECT 1 FROM allocations a WHERE a.drop_id = d.id AND a.closes_at > clock_timestamp() - interval '1 hour')
    OR EXISTS (SELECT 1 FROM reservations r WHERE r.drop_id = d.id AND NOT r.gate_released)
