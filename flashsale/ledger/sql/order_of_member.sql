-- A member's orders, newest first, of which there are few; otherwise as order_search, $8 being the member.
WITH mine AS MATERIALIZED (
    SELECT r.id, r.drop_id, r.allocation_id, r.member, r.quantity FROM (
        SELECT r.* FROM drops d JOIN reservations r ON r.drop_id = d.id AND r.member = $8::bigint
            AND r.state IN ('held', 'confirmed')
        UNION ALL
        SELECT r.* FROM reservations r WHERE r.member = $8::bigint AND r.state IN ('cancelled', 'expired', 'returned')
    ) r WHERE $4::text IS NULL OR r.drop_id = $4
), found AS (
    SELECT o.*, m.drop_id, m.allocation_id, m.member, m.quantity
    FROM mine m JOIN orders o ON o.reservation_id = m.id AND o.event <> 'payment.refund_due'
    UNION ALL
    SELECT o.*, m.drop_id, m.allocation_id, m.member, m.quantity
    FROM mine m JOIN orders o ON o.reservation_id = m.id AND o.event = 'payment.refund_due'
)
SELECT o.id, o.event, o.state, o.created_at, o.settled_at, o.tries, o.reason, o.amount, o.currency, o.payment_id,
    o.reservation_id, o.drop_id, o.allocation_id, o.member, o.quantity,
    CASE WHEN o.state = 'queued' THEN j.execute_after END AS due_at
FROM found o LEFT JOIN pgqueuer j ON j.dedupe_key = o.id::text AND j.status IN ('queued', 'picked')
WHERE ($1::order_state IS NULL OR o.state = $1) AND ($2::text IS NULL OR o.event = $2)
    AND ($3::uuid IS NULL OR o.id = $3) AND o.id >= $5::uuid AND o.id < $6::uuid
ORDER BY o.id DESC LIMIT $7
