-- The drops that still sell by F-codes.
SELECT d.id FROM drops d WHERE EXISTS (
    SELECT 1 FROM allocations a WHERE a.drop_id = d.id AND a.access ->> 'kind' = 'fcode'
        AND a.closes_at > now() - interval '1 hour'
) ORDER BY d.id
