-- The jobs of these orders, which must be tried again, go behind those that were not tried so often: whoever looks for
-- work passes over them while they wait.
UPDATE pgqueuer SET priority = priority - 1 WHERE dedupe_key = ANY ($1::text[]) AND status IN ('queued', 'picked')
