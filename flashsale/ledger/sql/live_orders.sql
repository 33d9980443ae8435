-- Where the orders of what is confirmed in a drop are.
SELECT count(*) FILTER (WHERE o.state = 'queued') AS waiting, count(*) FILTER (WHERE o.state = 'delivered') AS delivered,
    count(*) FILTER (WHERE o.state = 'dead') AS dead
FROM reservations r JOIN orders o ON o.id = r.order_id WHERE r.drop_id = $1 AND r.state = 'confirmed'
