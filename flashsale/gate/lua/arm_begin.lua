#!lua
-- arm_begin: starts a rebuild for an epoch, unless the gate is already armed for it or a later one.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] staging
-- ARGV[1] epoch  ARGV[2] how long the staging may live, ms
-- Returns "superseded" | "ok"
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] == replid and tonumber(meta[1]) >= tonumber(ARGV[1])
  and redis.call('HEXISTS', KEYS[2], '#') == 1 and redis.call('ZSCORE', KEYS[3], '#') then return 'superseded' end
redis.call('UNLINK', KEYS[4])
redis.call('HSET', KEYS[4], '#', replid)
redis.call('PEXPIRE', KEYS[4], ARGV[2])
return 'ok'
