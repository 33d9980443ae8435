-- Makes the table that a new snapshot's lines are copied into, and tells its number.
SELECT no, create_snapshot_points(no) AS table_name FROM (SELECT nextval('snapshot_numbers')::integer AS no) AS next
