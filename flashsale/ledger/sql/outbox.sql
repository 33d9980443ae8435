-- Ended reservations of a drop whose units the gate may not have back yet.
SELECT id, drop_id, member, keeps_slot, state = 'returned' AS returned, home_stripe, unit_stripe FROM reservations
WHERE drop_id = $1 AND NOT gate_released LIMIT $2
