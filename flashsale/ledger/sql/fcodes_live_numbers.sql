-- The codes of a drop that are spent, batch by batch along their index.
SELECT r.fcode FROM fcode_batches b JOIN reservations r
    ON r.fcode >= b.id::bigint << 22 AND r.fcode < (b.id + 1)::bigint << 22 AND r.state IN ('held', 'confirmed', 'returned')
WHERE b.drop_id = $1
