-- This server's clock.
SELECT clock_timestamp()
