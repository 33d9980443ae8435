-- What came of trying to deliver these orders: the new state, and the reason when it is not delivered.
UPDATE orders o SET state = u.state, tries = o.tries + 1, reason = u.reason,
    settled_at = CASE WHEN u.state <> 'queued' THEN clock_timestamp() END
FROM unnest($1::uuid[], $2::order_state[], $3::text[]) AS u (id, state, reason)
WHERE o.id = u.id AND o.state = 'queued'
