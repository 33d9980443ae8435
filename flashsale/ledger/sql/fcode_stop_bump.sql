-- New epochs for all drops that still sell by F-codes, locked in their order; returns which.
WITH locked AS (
    SELECT d.id FROM drops d WHERE EXISTS (
        SELECT 1 FROM allocations a WHERE a.drop_id = d.id AND a.access ->> 'kind' = 'fcode'
            AND a.closes_at > now() - interval '1 hour'
    ) ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE drops d SET epoch = next_epoch(d.epoch) FROM locked l WHERE d.id = l.id RETURNING d.id
