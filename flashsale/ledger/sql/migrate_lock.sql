-- One migration at a time; released when the session ends. The number is any that nobody else uses.
SELECT pg_advisory_lock(7305128493)
