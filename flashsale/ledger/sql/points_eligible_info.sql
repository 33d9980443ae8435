-- How many members and gate fields the computed list has; no row: not computed yet.
SELECT members, chunks FROM eligible_sets WHERE snapshot_id = $1 AND at_least = $2
