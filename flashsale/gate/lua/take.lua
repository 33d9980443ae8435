#!lua
-- take: units of this stripe for claims that stand on others; then, of one moment, what is left and which codes are
-- spent: a code that took the last unit is not seen free beside nothing left.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes
-- ARGV[1] least epoch the caller knows of
-- ARGV[2] claims, MessagePack [[id, member, allocation, quantity, code|"", epoch, entry]...]
-- ARGV[3] settled grants, MessagePack ["id|member"...]: taken out of pend
-- ARGV[4] codes to look at when all is taken, so that they agree with what is left, MessagePack [number...]
-- Returns ["unarmed"] or ["ok", epoch, now ms, [allocation, left...], [spent 0|1...], result...], a result being
--   "stale": of another epoch than this stripe's | "fcode_spent" | "sold_out" | "took"
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'replid', 'order')
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta[2] ~= replid or tonumber(meta[1]) < tonumber(ARGV[1]) or redis.call('HEXISTS', KEYS[2], '#') == 0
  or not redis.call('ZSCORE', KEYS[3], '#') or redis.call('HEXISTS', KEYS[4], '#') == 0 then return {'unarmed'} end
local own, order, left, bitmaps = tonumber(meta[1]), cmsgpack.unpack(meta[3]), {}, {}
local taken, spends, entries, grants = {}, {}, {}, {}
for _, id in ipairs(order) do left[id] = tonumber(redis.call('HGET', KEYS[1], 'n:' .. id)) end

local function bits_at(code) -- a field, its bitmap, and there the place of the code's byte and bit
  local batch, serial = math.floor(code / 4194304), code % 4194304 -- 22 bits of serial
  local field = 's:' .. batch .. ':' .. math.floor(serial / 1000)
  bitmaps[field] = bitmaps[field] or redis.call('HGET', KEYS[4], field) or ''
  return field, bitmaps[field], math.floor(serial % 1000 / 8) + 1, bit.lshift(1, serial % 8)
end

local function is_spent(code)
  local _, set, at, mask = bits_at(code)
  return bit.band(string.byte(set, at) or 0, mask) ~= 0
end

local function spend(code)
  local field, set, at, mask = bits_at(code)
  set = set .. string.rep('\0', at - #set)
  local byte = string.char(bit.bor(string.byte(set, at), mask))
  bitmaps[field] = string.sub(set, 1, at - 1) .. byte .. string.sub(set, at + 1)
  spends[field] = true
end

local spent, lefts = {}, {}
local out = {'ok', own, now, lefts, spent}
for _, claim in ipairs(cmsgpack.unpack(ARGV[2])) do
  local id, member, allocation, quantity, code, epoch, entry = unpack(claim)
  local result = 'took'
  if epoch ~= own then result = 'stale'
  elseif code ~= '' and is_spent(code) then result = 'fcode_spent'
  elseif (left[allocation] or 0) < quantity then result = 'sold_out'
  else
    left[allocation] = left[allocation] - quantity
    taken[allocation] = left[allocation]
    local mine = entries[member] or redis.call('HGET', KEYS[2], member)
    entries[member] = mine and mine .. '\n' .. entry or entry
    grants[#grants + 1] = id .. '|' .. member
    if code ~= '' then spend(code) end
  end
  out[#out + 1] = result
end
for i, id in ipairs(order) do lefts[2 * i - 1], lefts[2 * i] = id, left[id] end
for i, code in ipairs(cmsgpack.unpack(ARGV[4])) do spent[i] = is_spent(code) and 1 or 0 end

for id, n in pairs(taken) do redis.call('HSET', KEYS[1], 'n:' .. id, n) end
for field in pairs(spends) do redis.call('HSET', KEYS[4], field, bitmaps[field]) end
for member, lines in pairs(entries) do redis.call('HSET', KEYS[2], member, lines) end
for _, grant in ipairs(grants) do redis.call('ZADD', KEYS[3], now, grant) end
local settled = cmsgpack.unpack(ARGV[3])
for i = 1, #settled, 4000 do redis.call('ZREM', KEYS[3], unpack(settled, i, math.min(i + 3999, #settled))) end
return out
