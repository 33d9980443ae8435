-- Tombstones for grants that nobody committed; returns what stands under each id.
SELECT id, member, state FROM void_grants($1, $2, $3, $4, $5, $6, $7, $8, $9)
