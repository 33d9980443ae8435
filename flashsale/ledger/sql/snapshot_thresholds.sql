-- How many members of a snapshot have at least so many points, for all numbers of two digits and zeros at which that changes.
SELECT t.at_least, (sum(t.members) OVER (ORDER BY t.at_least DESC))::bigint AS members
FROM (
    SELECT CASE WHEN p.points < 100 THEN p.points
        ELSE p.points / power(10, length(p.points::text) - 2)::bigint * power(10, length(p.points::text) - 2)::bigint
        END AS at_least, sum(p.members) AS members
    FROM (
        SELECT points, count(*) AS members FROM snapshot_points
        WHERE snapshot_no = (SELECT no FROM snapshots WHERE id = $1) GROUP BY points
    ) p GROUP BY 1
) t ORDER BY t.at_least
