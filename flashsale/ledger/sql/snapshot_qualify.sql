-- How many members of a snapshot have at least $2 points.
SELECT count(*) FROM snapshot_points
WHERE snapshot_no = (SELECT no FROM snapshots WHERE id = $1) AND points >= $2
