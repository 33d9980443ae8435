-- One member's points in one snapshot; no row: the snapshot is unknown or the member is not in it.
SELECT points
FROM snapshot_points
WHERE snapshot_no = (SELECT no FROM snapshots WHERE id = $1) AND member = $2
