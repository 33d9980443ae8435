-- How the queue is: how many wait, since when the oldest, how often the most unlucky was tried, how many are dead; and
-- whether the endpoint $1 said that it is gone.
SELECT q.waiting, q.oldest_s, q.tries_max, d.dead, EXISTS (
    SELECT 1 FROM disabled_endpoints e WHERE e.url = $1
) AS disabled
FROM (
    SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(o.queued_at)), 0)::float8 AS oldest_s,
        coalesce(max(o.tries), 0) AS tries_max
    FROM orders o WHERE o.state = 'queued'
) q, (SELECT count(*) AS dead FROM orders o WHERE o.state = 'dead') d
