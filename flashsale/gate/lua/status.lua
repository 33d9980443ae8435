#!lua flags=no-writes
-- status: whether the gate is armed, and what it holds.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes  KEYS[5..] elig, one per points rule of the drop, then bound,
-- one per batch of ARGV[3]
-- ARGV[1] least epoch the caller knows of
-- ARGV[2] entries to look for, MessagePack [[id, member]...]; empty: do not list grants and entries at all
-- ARGV[3] MessagePack [batch...]: the bound batches that the caller knows of
-- Returns ["unarmed", now ms], or ["bound", batch...]: ask again with these, or ["ok", now ms, epoch, ms for which
-- leases are out, [allocation, available]...] and then, unless ARGV[2] is empty, "#pend", entry..., "#found", entry...
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local raw, meta = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #raw, 2 do meta[raw[i]] = raw[i + 1] end
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta.replid ~= replid or tonumber(meta.epoch) < tonumber(ARGV[1]) or redis.call('HEXISTS', KEYS[2], '#') == 0
  or not redis.call('ZSCORE', KEYS[3], '#') or redis.call('HEXISTS', KEYS[4], '#') == 0 then return {'unarmed', now} end
local bound, known = cmsgpack.unpack(meta.bound), {}
for _, batch in ipairs(cmsgpack.unpack(ARGV[3])) do known[batch] = true end
for _, batch in ipairs(bound) do
  if not known[batch] then
    table.insert(bound, 1, 'bound')
    return bound
  end
end
for i = 5, #KEYS do
  local n = redis.call('HGET', KEYS[i], '#')
  if not n or redis.call('HLEN', KEYS[i]) ~= n + 1 then return {'unarmed', now} end
end
local out = {'ok', now, tonumber(meta.epoch), math.max(0, tonumber(meta.lease or 0) - now)}
for _, id in ipairs(cmsgpack.unpack(meta.order)) do out[#out + 1] = {id, tonumber(meta['n:' .. id])} end
local function add(id, member)
  for line in string.gmatch(redis.call('HGET', KEYS[2], member) or '', '[^\n]+') do
    if string.sub(line, 1, #id + 1) == id .. '\t' then out[#out + 1] = line end
  end
end
if ARGV[2] == '' then return out end
out[#out + 1] = '#pend'
for _, grant in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], 1, '+inf')) do add(string.match(grant, '^(.-)|(%d+)$')) end
out[#out + 1] = '#found'
for _, pair in ipairs(cmsgpack.unpack(ARGV[2])) do add(pair[1], pair[2]) end
return out
