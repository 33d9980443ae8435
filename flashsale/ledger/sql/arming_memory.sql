-- For this transaction: memory to aggregate hundreds of thousands of reservations without a file, and the time it takes.
SELECT set_config('work_mem', '128MB', true), set_config('statement_timeout', $1, true)
