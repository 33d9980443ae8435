-- The job of an order that is settled, if it has not been taken away yet.
DELETE FROM pgqueuer WHERE dedupe_key = $1
