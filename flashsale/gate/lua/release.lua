#!lua flags=allow-oom
-- release: gives units back. Acts only where the member's entry has that very id, so it may be repeated.
-- An entry that keeps its place under the member's limit loses its allocation instead of going.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend
-- ARGV[1] what to release, MessagePack [[id, member, keep 0|1]...]
-- Returns ["unarmed"] or ["ok", epoch, how many entries were there]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] ~= replid or redis.call('HEXISTS', KEYS[2], '#') == 0 or not redis.call('ZSCORE', KEYS[3], '#') then
  return {'unarmed'}
end
local released = 0
for _, pair in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, member, kept = pair[1], pair[2], {}
  local entries = redis.call('HGET', KEYS[2], member)
  local allocation, quantity
  for line in string.gmatch(entries or '', '[^\n]+') do
    local found, units, rest = string.match(line, '^.-\t(.-)\t(%d+)(\t.*)$')
    if found ~= '' and string.sub(line, 1, #id + 1) == id .. '\t' then
      allocation, quantity = found, units
      line = pair[3] == 1 and id .. '\t\t' .. units .. rest or nil
    end
    kept[#kept + 1] = line
  end
  if allocation then
    if #kept == 0 then redis.call('HDEL', KEYS[2], member)
    else redis.call('HSET', KEYS[2], member, table.concat(kept, '\n')) end
    redis.call('ZREM', KEYS[3], id .. '|' .. member)
    redis.call('HINCRBY', KEYS[1], 'n:' .. allocation, quantity)
    released = released + 1
  end
end
return {'ok', tonumber(meta[1]), released}
