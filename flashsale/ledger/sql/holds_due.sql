-- Holds whose time is over by this server's clock, oldest first. now(), not clock_timestamp(): only a time that stands
-- still for the statement can bound the index scan, which would read every hold otherwise.
SELECT id, drop_id FROM reservations WHERE state = 'held' AND expires_at <= now()
ORDER BY expires_at LIMIT $1
