#!lua flags=no-writes
-- pending: grants not known to be in the ledger, oldest first.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes
-- ARGV[1] only those at least this old, ms  ARGV[2] how many at most
-- Returns ["unarmed"] or ["ok", epoch, [member, entry]...]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] ~= replid or redis.call('HEXISTS', KEYS[2], '#') == 0 or not redis.call('ZSCORE', KEYS[3], '#')
  or redis.call('HEXISTS', KEYS[4], '#') == 0 then return {'unarmed'} end
local now = redis.call('TIME')
local until_ms = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1]
local out = {'ok', tonumber(meta[1])}
for _, grant in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], 1, until_ms, 'LIMIT', 0, ARGV[2])) do
  local id, member = string.match(grant, '^(.-)|(%d+)$')
  for line in string.gmatch(redis.call('HGET', KEYS[2], member) or '', '[^\n]+') do
    if string.sub(line, 1, #id + 1) == id .. '\t' then out[#out + 1] = {member, line} end
  end
end
return out
