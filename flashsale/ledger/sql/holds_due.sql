-- Holds whose time is over by this server's clock, oldest first.
SELECT id, drop_id FROM reservations WHERE state = 'held' AND expires_at <= clock_timestamp()
ORDER BY expires_at LIMIT $1
