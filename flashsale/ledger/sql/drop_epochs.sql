-- The epoch of every drop, and whether its last window closed more than an hour ago.
SELECT d.id, d.epoch, d.paused, d.closed,
    (SELECT max(a.closes_at) FROM allocations a WHERE a.drop_id = d.id) < clock_timestamp() - interval '1 hour' AS over
FROM drops d
