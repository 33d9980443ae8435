-- An order that this transaction has locked waits for the worker again.
UPDATE orders SET state = 'queued', queued_at = clock_timestamp(), settled_at = NULL, tries = 0 WHERE id = $1
