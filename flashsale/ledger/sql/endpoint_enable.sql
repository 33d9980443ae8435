-- An operator wants to send again, wherever it may be.
DELETE FROM disabled_endpoints
