#!lua
-- arm_finish: swaps complete stagings into place; from here on the gate is armed for the epoch.
-- A list of members that is not whole is removed, so that the next try brings it again.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes  KEYS[5] staging of ent  KEYS[6] staging of codes
-- KEYS[7] late  KEYS[8..] elig, one per points rule of the drop, and bound, one per bound batch of F-codes
-- ARGV[1] epoch  ARGV[2] how many members the staging must hold  ARGV[3] how many fields that of codes must hold
-- ARGV[4] meta, MessagePack [field, value or array...]  ARGV[5] time to live of all keys, ms
-- ARGV[6] how long leases may be out that nothing is known of here, ms
-- Returns "lost" | "superseded" | "ok"
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
for i = 5, 6 do
  local fields = ARGV[i - 3] + 1
  if redis.call('HGET', KEYS[i], '#') ~= replid or redis.call('HLEN', KEYS[i]) ~= fields then return 'lost' end
end
local meta, now = redis.call('HMGET', KEYS[1], 'epoch', 'replid', 'lease'), redis.call('TIME')
if meta[2] == replid and tonumber(meta[1]) >= tonumber(ARGV[1]) and redis.call('HEXISTS', KEYS[2], '#') == 1
  and redis.call('ZSCORE', KEYS[3], '#') and redis.call('HEXISTS', KEYS[4], '#') == 1 then return 'superseded' end
local lease = meta[2] == replid and (meta[3] or 0) or now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[6]
for i = 8, #KEYS do
  local n = redis.call('HGET', KEYS[i], '#')
  if not n or redis.call('HLEN', KEYS[i]) ~= n + 1 then
    redis.call('UNLINK', KEYS[i])
    return 'lost'
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7])
redis.call('RENAME', KEYS[5], KEYS[2])
redis.call('RENAME', KEYS[6], KEYS[4])
redis.call('ZADD', KEYS[3], 0, '#')
local fields = cmsgpack.unpack(ARGV[4])
for i, value in ipairs(fields) do if type(value) == 'table' then fields[i] = cmsgpack.pack(value) end end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'replid', replid, 'lease', lease, unpack(fields))
for i = 1, #KEYS do if i ~= 5 and i ~= 6 then redis.call('PEXPIRE', KEYS[i], ARGV[5]) end end
return 'ok'
