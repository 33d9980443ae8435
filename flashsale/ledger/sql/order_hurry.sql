-- The next try of this order is due now; nothing while one is under way.
UPDATE pgqueuer SET execute_after = now() WHERE dedupe_key = $1 AND status = 'queued' AND execute_after > now()
