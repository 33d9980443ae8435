-- Orders, newest first; $1 in this state, $2 this event, $3 this one, $4 of this drop (null: all); with ids from $5 on and
-- before $6, which grow with time; when the next try is due.
SELECT o.id, o.event, o.state, o.created_at, o.settled_at, o.tries, o.reason, o.amount, o.currency, o.payment_id,
    o.reservation_id, r.drop_id, r.allocation_id, r.member, r.quantity,
    CASE WHEN o.state = 'queued' THEN j.execute_after END AS due_at
FROM orders o JOIN reservations r ON r.id = o.reservation_id
LEFT JOIN pgqueuer j ON j.dedupe_key = o.id::text AND j.status IN ('queued', 'picked')
WHERE ($1::order_state IS NULL OR o.state = $1) AND ($2::text IS NULL OR o.event = $2)
    AND ($3::uuid IS NULL OR o.id = $3) AND ($4::text IS NULL OR r.drop_id = $4) AND o.id >= $5::uuid AND o.id < $6::uuid
ORDER BY o.id DESC LIMIT $7
