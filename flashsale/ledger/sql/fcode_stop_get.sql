-- Since when the F-codes of all drops are stopped, if they are; and which drops have stopped their own.
SELECT s.at, s.actor, s.reason,
    coalesce((SELECT array_agg(d.id ORDER BY d.id) FROM drops d WHERE d.fcodes_stopped AND NOT d.closed), '{}') AS drops
FROM (SELECT 1) AS one LEFT JOIN fcode_stop s ON true
