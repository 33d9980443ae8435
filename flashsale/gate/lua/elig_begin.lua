#!lua
-- elig_begin: opens a staging for a set of eligible members.
-- KEYS[1] staging
-- ARGV[1] how long the staging may live, ms
-- Returns "ok"
redis.call('HSET', KEYS[1], '#', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 'ok'
