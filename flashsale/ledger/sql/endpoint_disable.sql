-- This endpoint said that it is gone.
INSERT INTO disabled_endpoints (url) VALUES ($1) ON CONFLICT DO NOTHING
