-- In which order a drop's reservations were asked for, by the ms in their ids, and when each was written, us; those with
-- ids after $2 and before $3.
SELECT r.id, (extract(epoch FROM r.created_at) * 1000000)::bigint AS created FROM reservations r
WHERE r.id > $2::uuid AND r.id < $3::uuid AND r.drop_id = $1 AND r.state <> 'void' ORDER BY r.id LIMIT $4
