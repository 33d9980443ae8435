-- What these orders say to the shop.
SELECT o.id, o.event, o.state, o.tries, o.created_at, o.amount, o.currency, o.payment_id, o.detail, o.reservation_id,
    r.order_id, r.drop_id, r.allocation_id, r.member, r.quantity, r.fcode,
    d.hidden AS sink
FROM orders o JOIN reservations r ON r.id = o.reservation_id JOIN drops d ON d.id = r.drop_id WHERE o.id = ANY ($1::uuid[])
