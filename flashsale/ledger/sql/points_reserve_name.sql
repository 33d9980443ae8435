-- Keeps the name for this transaction's import; false when another import of it is under way.
SELECT pg_try_advisory_xact_lock(hashtextextended('points_snapshot:' || $1, 0)) AS reserved
