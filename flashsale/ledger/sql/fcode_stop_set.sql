-- The F-codes of all drops are stopped from now on; nothing when they are already.
INSERT INTO fcode_stop (actor, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING
