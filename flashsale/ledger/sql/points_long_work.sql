-- Lets this transaction's statements, and their waiting for another such transaction, last $1 (with a unit); and sort
-- in memory.
SELECT
    set_config('statement_timeout', $1, true),
    set_config('lock_timeout', $1, true),
    set_config('work_mem', '64MB', true)
