#!lua
-- arm_finish: swaps a complete staging into place; from here on the gate is armed for the epoch.
-- A set of eligible members that is not whole is removed, so that the next try brings it again.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] staging  KEYS[5..] elig, one per points rule of the drop
-- ARGV[1] epoch  ARGV[2] how many members the staging must hold  ARGV[3] meta, MessagePack [field, value or array...]
-- ARGV[4] time to live of all keys, ms
-- Returns "lost" | "superseded" | "ok"
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if redis.call('HGET', KEYS[4], '#') ~= replid or redis.call('HLEN', KEYS[4]) ~= ARGV[2] + 1 then return 'lost' end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
if meta[2] == replid and tonumber(meta[1]) >= tonumber(ARGV[1])
  and redis.call('HEXISTS', KEYS[2], '#') == 1 and redis.call('ZSCORE', KEYS[3], '#') then return 'superseded' end
for i = 5, #KEYS do
  local n = redis.call('HGET', KEYS[i], '#')
  if not n or redis.call('HLEN', KEYS[i]) ~= n + 1 then
    redis.call('UNLINK', KEYS[i])
    return 'lost'
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('RENAME', KEYS[4], KEYS[2])
redis.call('ZADD', KEYS[3], 0, '#')
local fields = cmsgpack.unpack(ARGV[3])
for i, value in ipairs(fields) do if type(value) == 'table' then fields[i] = cmsgpack.pack(value) end end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'replid', replid, unpack(fields))
for i = 1, #KEYS do if i ~= 4 then redis.call('PEXPIRE', KEYS[i], ARGV[4]) end end
return 'ok'
