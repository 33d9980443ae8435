-- A batch's codes by state; `revoked` those that were not spent before.
SELECT
    coalesce((SELECT jsonb_object_agg(s.state, s.n) FROM (
        SELECT r.state, count(*) AS n FROM reservations r
        WHERE r.fcode >= b.id::bigint << 22 AND r.fcode < (b.id + 1)::bigint << 22
            AND r.state IN ('held', 'confirmed', 'returned') GROUP BY r.state
    ) s), '{}') AS spent,
    CASE WHEN b.revoked_at IS NOT NULL THEN b.count - (
        SELECT count(*) FROM reservations r WHERE r.fcode >= b.id::bigint << 22 AND r.fcode < (b.id + 1)::bigint << 22
            AND r.state IN ('held', 'confirmed', 'returned'))
    ELSE (
        SELECT count(*) FROM fcode_revoked v WHERE v.batch_id = b.id AND NOT EXISTS (
            SELECT 1 FROM reservations r WHERE r.fcode = b.id::bigint << 22 | v.serial
                AND r.state IN ('held', 'confirmed', 'returned'))
    ) END AS revoked
FROM fcode_batches b WHERE b.id = $1
