-- What came of trying to deliver these orders: the new state, and the reason when it is not delivered. One that must be
-- tried again goes behind those that were not tried yet: whoever looks for work would pass over it each time.
WITH tried AS (
    UPDATE orders o SET state = u.state, tries = o.tries + 1, reason = u.reason,
        settled_at = CASE WHEN u.state <> 'queued' THEN clock_timestamp() END
    FROM unnest($1::uuid[], $2::order_state[], $3::text[]) AS u (id, state, reason)
    WHERE o.id = u.id AND o.state = 'queued'
    RETURNING o.id, o.state, o.tries
)
UPDATE pgqueuer j SET priority = -t.tries FROM tried t
WHERE t.state = 'queued' AND j.dedupe_key = t.id::text AND j.status IN ('queued', 'picked')
