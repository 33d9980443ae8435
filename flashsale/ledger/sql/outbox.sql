-- Ended reservations whose units the gate may not have back yet; $1 only of this drop (null: all).
SELECT id, drop_id, member, allocation_id, quantity FROM reservations
WHERE NOT gate_released AND ($1::text IS NULL OR drop_id = $1) LIMIT $2
