-- Drops with their allocations, by id; $1 only this one (null: all that are not hidden), $2 after this id, $3 at most so
-- many.
SELECT d.*, w.texts, w.picture, clock_timestamp() AS now,
    d.fcodes_stopped OR EXISTS (SELECT 1 FROM fcode_stop) AS codes_stopped,
    coalesce((SELECT json_agg(json_build_object(
        'id', a.id, 'quantity', a.quantity, 'opens_at', a.opens_at, 'closes_at', a.closes_at,
        'access', a.access, 'channel', a.channel, 'eligible_set', s.token) ORDER BY a.position)
        FROM allocations a
        LEFT JOIN eligible_sets s ON a.access ->> 'kind' = 'points' AND s.snapshot_id = a.access ->> 'snapshot'
            AND s.at_least = (a.access ->> 'at_least')::bigint
        WHERE a.drop_id = d.id), '[]') AS allocations
FROM drops d
LEFT JOIN drop_words w ON w.drop_id = d.id
WHERE (CASE WHEN $1::text IS NULL THEN NOT d.hidden ELSE d.id = $1 END) AND ($2::text IS NULL OR d.id > $2)
ORDER BY d.id LIMIT $3
