-- How many units of each allocation of these drops are taken.
SELECT drop_id, id, taken FROM allocations WHERE drop_id = ANY ($1::text[])
