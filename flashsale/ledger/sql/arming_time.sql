-- For this transaction: the time that a rebuild may take.
SELECT set_config('statement_timeout', $1, true)
