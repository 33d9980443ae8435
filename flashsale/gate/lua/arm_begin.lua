#!lua
-- arm_begin: starts a rebuild for an epoch, unless the gate is already armed for it or a later one.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes  KEYS[5] staging of ent  KEYS[6] staging of codes
-- ARGV[1] epoch  ARGV[2] how long the stagings may live, ms
-- Returns "superseded" | "ok"
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] == replid and tonumber(meta[1]) >= tonumber(ARGV[1]) and redis.call('HEXISTS', KEYS[2], '#') == 1
  and redis.call('ZSCORE', KEYS[3], '#') and redis.call('HEXISTS', KEYS[4], '#') == 1 then return 'superseded' end
for i = 5, 6 do
  redis.call('UNLINK', KEYS[i])
  redis.call('HSET', KEYS[i], '#', replid)
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return 'ok'
