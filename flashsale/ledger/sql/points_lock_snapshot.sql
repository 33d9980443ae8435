-- Lets one transaction at a time compute something about a snapshot; readers and foreign keys do not wait.
SELECT no FROM snapshots WHERE id = $1 FOR NO KEY UPDATE
