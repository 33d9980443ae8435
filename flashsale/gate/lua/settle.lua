#!lua flags=allow-oom
-- settle: these grants are in the ledger; takes them out of pend. May be repeated.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes
-- ARGV[1] settled grants, MessagePack ["id|member"...]
-- Returns ["unarmed"] or ["ok", epoch, how many were pending]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] ~= replid or redis.call('HEXISTS', KEYS[2], '#') == 0 or not redis.call('ZSCORE', KEYS[3], '#')
  or redis.call('HEXISTS', KEYS[4], '#') == 0 then return {'unarmed'} end
local settled, count = cmsgpack.unpack(ARGV[1]), 0
for i = 1, #settled, 4000 do -- Lua's stack holds fewer than 8000 arguments
  count = count + redis.call('ZREM', KEYS[3], unpack(settled, i, math.min(i + 3999, #settled)))
end
return {'ok', tonumber(meta[1]), count}
