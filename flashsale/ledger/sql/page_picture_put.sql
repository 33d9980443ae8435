-- Keep a picture; nothing happens when it is there.
INSERT INTO pictures (id, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING
