#!lua flags=allow-oom
-- release: gives units back, and frees their codes. Acts only where the member's entry has that very id, so it may be
-- repeated. An entry that keeps its place under the member's limit loses its allocation instead of going. One whose
-- unit is on another stripe ("@" at its end) has none to give here, and no code to free.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes
-- ARGV[1] what to release, MessagePack [[id, member, flags]...]; flags: 1 keeps its place + 2 its code stays spent
-- Returns ["unarmed"] or ["ok", epoch, how many entries were there]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] ~= replid or redis.call('HEXISTS', KEYS[2], '#') == 0 or not redis.call('ZSCORE', KEYS[3], '#')
  or redis.call('HEXISTS', KEYS[4], '#') == 0 then return {'unarmed'} end

local function free(code)
  local batch, serial = math.floor(code / 4194304), code % 4194304 -- 22 bits of serial
  local field, at = 's:' .. batch .. ':' .. math.floor(serial / 1000), math.floor(serial % 1000 / 8) + 1
  local set = redis.call('HGET', KEYS[4], field) or ''
  local byte = string.byte(set, at)
  if not byte then return end
  byte = string.char(bit.band(byte, 255 - bit.lshift(1, serial % 8)))
  redis.call('HSET', KEYS[4], field, string.sub(set, 1, at - 1) .. byte .. string.sub(set, at + 1))
end

local released = 0
for _, item in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, member, flags, kept = item[1], item[2], item[3], {}
  local entries = redis.call('HGET', KEYS[2], member)
  local allocation, quantity, code
  for line in string.gmatch(entries or '', '[^\n]+') do
    local found, units, rest = string.match(line, '^.-\t(.-)\t(%d+)(\t.*)$')
    if found ~= '' and string.sub(line, 1, #id + 1) == id .. '\t' then
      allocation, quantity, code = found, string.sub(rest, -1) == '@' and 0 or units, string.match(rest, '\t(%d+)$')
      line = flags % 2 == 1 and id .. '\t\t' .. units .. string.gsub(rest, '@$', '') or nil
    end
    kept[#kept + 1] = line
  end
  if allocation then
    if #kept == 0 then redis.call('HDEL', KEYS[2], member)
    else redis.call('HSET', KEYS[2], member, table.concat(kept, '\n')) end
    redis.call('ZREM', KEYS[3], id .. '|' .. member)
    redis.call('HINCRBY', KEYS[1], 'n:' .. allocation, quantity)
    if code and flags < 2 then free(code) end
    released = released + 1
  end
end
return {'ok', tonumber(meta[1]), released}
