-- For this transaction: enough memory to aggregate hundreds of thousands of reservations without a file.
SELECT set_config('work_mem', '128MB', true)
