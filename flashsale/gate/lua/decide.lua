#!lua
-- decide: a verdict for each request, and a unit for each that gets one.
-- KEYS[1] meta  KEYS[2] ent  KEYS[3] pend  KEYS[4] codes  KEYS[5..] elig, one per points rule of the drop, then bound,
-- one per batch of ARGV[4]
-- ARGV[1] least epoch the caller knows of
-- ARGV[2] requests by columns, MessagePack [[member...], [id...], [key|""...] or [] when nobody has one, [which...],
--   [[allocation|"", quantity, payload, tier, code, high, low, true]...]]: the last has each thing that is asked for
--   once, and `which` counts them from 0; code, high, low, with an F-code only, are its number and the member's 32-bit
--   halves, so that nobody else asks for the same; true, when the code was seen spent on stripe 0
-- ARGV[3] settled grants, MessagePack ["id|member"...]: taken out of pend
-- ARGV[4] MessagePack [batch...]: those of the requests' codes
-- ARGV[5] how many may be granted; a further one that would be is "withheld", and takes nothing
-- ARGV[6] of a striped drop, what its other stripes may have, MessagePack {allocation: [units, most of one stripe]...};
--   else ""
-- Returns ["unarmed"] or ["ok", epoch, now ms, result...], of a striped drop with [allocation, left...] after them, a
-- number n meaning the result before it n more times, else
--   ["again", entry, pending 0|1] | "idempotency_mismatch" | "not_found" | "closed" | "paused" | "not_eligible"
--   | ["not_open", opens ms] | "fcode_invalid" | "fcode_spent" | "member_limit" | "sold_out"
--   | "withheld" | ["held", allocation, slot]
--   and in a striped drop | ["dry", allocation, slot]: the claim stands, its unit is to be fetched | ["short", word,
--   opens ms|0, allocation...]: refused by that word, but for units that other stripes may have of these; a mere
--   sold_out says so of the allocation asked for, or of all those that are not for codes
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local raw, meta = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #raw, 2 do meta[raw[i]] = raw[i + 1] end
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if meta.replid ~= replid or tonumber(meta.epoch) < tonumber(ARGV[1]) or redis.call('HEXISTS', KEYS[2], '#') == 0
  or not redis.call('ZSCORE', KEYS[3], '#') or redis.call('HEXISTS', KEYS[4], '#') == 0 then return {'unarmed'} end
local allocs, order, sets, named = {}, cmsgpack.unpack(meta.order), {}, cmsgpack.unpack(ARGV[4])
local far = ARGV[6] ~= '' and cmsgpack.unpack(ARGV[6])
for i, id in ipairs(order) do
  local opens, closes, kind, arg = unpack(cmsgpack.unpack(meta['a:' .. id]))
  allocs[i] = {id = id, opens = opens, closes = closes, kind = kind, arg = arg, left = tonumber(meta['n:' .. id])}
  allocs[id] = allocs[i]
end
for i = 5, #KEYS - #named do
  if redis.call('HEXISTS', KEYS[i], '#') == 0 then return {'unarmed'} end
  sets[KEYS[i]] = true
end
for i = 1, #order do if allocs[i].kind == 'points' and not sets[allocs[i].arg] then return {'unarmed'} end end
local batches = {}
for i, batch in ipairs(named) do
  local facts = redis.call('HGET', KEYS[4], 'b:' .. batch)
  if facts then
    local allocation, expires, revoked, count, bound = unpack(cmsgpack.unpack(facts))
    local over = revoked == 1 or expires > 0 and now >= expires
    batches[batch] = {id = batch, allocation = allocation, count = count, over = over}
    if bound == 1 and not over then -- of a batch that is over, nobody needs to know whose its codes are
      local key = KEYS[#KEYS - #named + i]
      local n = redis.call('HGET', key, '#')
      if not n or redis.call('HLEN', key) ~= n + 1 then return {'unarmed'} end
      batches[batch].owners, batches[batch].lists = key, {}
    end
  end
end
local limit, may_grant, entries = tonumber(meta.limit), tonumber(ARGV[5]), {}
local members, ids, names, which, asked = unpack(cmsgpack.unpack(ARGV[2]))
for at = 1, #members, 4000 do -- Lua's stack holds fewer than 8000 arguments
  local lines = redis.call('HMGET', KEYS[2], unpack(members, at, math.min(at + 3999, #members)))
  for i = 1, #lines do entries[members[at + i - 1]] = lines[i] end
end
local out, more, to_all, by_member = {'ok', tonumber(meta.epoch), now}, 0, {}
local grants, taken, bitmaps, spent = {}, {}, {}, {}
local no_lane = meta.closed == '1' and 'closed' or meta.paused == '1' and 'paused' or 'fcode_invalid'
local RANK = {
  closed = 1, paused = 2, not_eligible = 3, not_open = 4, fcode_invalid = 5, fcode_spent = 6, member_limit = 7,
  sold_out = 8,
}

local function eligible(a, r)
  if a.kind == 'tier' then return r[7] >= a.arg end
  if a.kind ~= 'points' then return true end
  by_member = true
  local set, lo = redis.call('HGET', a.arg, string.sub(r[2], 1, -4)), tonumber(string.sub(r[2], -3))
  if not set then return false end
  if string.byte(set) == 98 then -- 'b': a bitmap
    local byte = string.byte(set, 2 + math.floor(lo / 8))
    return byte ~= nil and bit.band(byte, bit.lshift(1, lo % 8)) ~= 0
  end
  for i = 2, #set, 2 do -- 's': a list
    if string.byte(set, i) * 256 + string.byte(set, i + 1) == lo then return true end
  end
  return false
end

local function batch_of(r) -- and the code's serial: its last 22 bits
  return r[8] and batches[math.floor(r[8] / 4194304)], r[8] and r[8] % 4194304
end

local function bits_at(kind, batch, serial) -- a field, its bitmap, and there the place of the serial's byte and bit
  local field = kind .. batch.id .. ':' .. math.floor(serial / 1000)
  bitmaps[field] = bitmaps[field] or redis.call('HGET', KEYS[4], field) or ''
  return field, bitmaps[field], math.floor(serial % 1000 / 8) + 1, bit.lshift(1, serial % 8)
end

local function is_set(kind, batch, serial)
  local _, set, at, mask = bits_at(kind, batch, serial)
  return bit.band(string.byte(set, at) or 0, mask) ~= 0
end

local function spend(batch, serial)
  local field, set, at, mask = bits_at('s:', batch, serial)
  set = set .. string.rep('\0', at - #set)
  local byte = string.char(bit.bor(string.byte(set, at), mask))
  bitmaps[field] = string.sub(set, 1, at - 1) .. byte .. string.sub(set, at + 1)
  spent[field] = true
end

local function belongs(batch, serial, r)
  if not batch.owners then return true end
  local thousand, at, lists = math.floor(serial / 1000), serial % 1000 * 8, batch.lists
  lists[thousand] = lists[thousand] or redis.call('HGET', batch.owners, thousand) or ''
  if #lists[thousand] < at + 8 then return false end
  local high, low = struct.unpack('>I4I4', lists[thousand], at + 1) -- one number could not hold 63 bits
  return high == r[9] and low == r[10]
end

local function refused(a, r) -- the code, or that there is none
  if (a.kind == 'fcode') ~= (r[8] ~= nil) then return 'fcode_invalid' end
  if not r[8] then return nil end
  local batch, serial = batch_of(r)
  if not batch or batch.allocation ~= a.id or batch.over or serial >= batch.count or r[4] ~= 1
    or is_set('r:', batch, serial) or not belongs(batch, serial, r) then return 'fcode_invalid' end
  if is_set('s:', batch, serial) or r[11] then return 'fcode_spent' end
end

local function elsewhere(a, quantity) -- all units of a reservation come from one stripe
  local has = far and far[a.id]
  return has and has[1] >= quantity and has[2] >= quantity
end

local function judge(a, r, used)
  if meta.closed == '1' or now >= a.closes then return 'closed' end
  if meta.paused == '1' or a.kind == 'fcode' and a.arg == 1 then return 'paused' end
  if not eligible(a, r) then return 'not_eligible' end
  if now < a.opens then return 'not_open' end
  local why = refused(a, r)
  if why then return why end
  if used + r[4] > limit then return 'member_limit' end
  if a.left < r[4] and not elsewhere(a, r[4]) then return 'sold_out' end
end

local function decide(i, member, what)
  local wanted, quantity, payload, tier, code, high, low, seen = unpack(what)
  local id, key = ids[i], names[i] or ''
  local r = {id, member, wanted, quantity, key, payload, tier, code, high, low, seen}
  local used, slots, result = 0, {}, nil
  for line in string.gmatch(entries[member] or '', '[^\n]+') do
    local eid, ealloc, eq, eslot, ekey, epayload = string.match(line, '^(.-)\t(.-)\t(%d+)\t(%d+)\t(.-)\t(.-)\t')
    used, slots[tonumber(eslot)] = used + eq, true
    if key ~= '' and ekey == key and epayload ~= payload then result = 'idempotency_mismatch'
    elseif ekey == key and key ~= ''
      or key == '' and limit == 1 and ealloc ~= '' and (wanted == '' or wanted == ealloc) then
      local pending = grants[eid .. '|' .. member] or redis.call('ZSCORE', KEYS[3], eid .. '|' .. member)
      result = {'again', line, pending and 1 or 0}
    end
  end
  local batch, serial = batch_of(r)
  local only = wanted ~= '' and wanted or batch and batch.allocation -- a code without an allocation: its own
  local found, best, last = nil, 99, #order
  if only or code then last = allocs[only] and 1 or 0 end
  local short = far and {}
  for k = 1, result and 0 or last do
    local a = allocs[only or k]
    if only or a.kind ~= 'fcode' then
      local why = judge(a, r, used)
      if not why then found = a break end
      if short and why == 'sold_out' then short[#short + 1] = a.id end
      if RANK[why] < best then best, result = RANK[why], why == 'not_open' and {why, a.opens} or why
      elseif why == 'not_open' and best == RANK.not_open then result[2] = math.min(result[2], a.opens) end
    end
  end
  if not found and short and short[1] and (result ~= 'sold_out' or code and wanted == '') then
    result = {'short', result[1] or result, result[2] or 0, unpack(short)}
  end
  if found and may_grant == 0 then result = 'withheld'
  elseif found then
    local slot = 1
    may_grant = may_grant - 1
    while slots[slot] do slot = slot + 1 end
    local here, shown = found.left >= quantity, code or ''
    if here then
      found.left = found.left - quantity
      taken[found.id] = found.left
      if code then spend(batch, serial) end
    else
      far[found.id][1], shown = far[found.id][1] - quantity, shown .. '@'
    end
    local line = table.concat({id, found.id, quantity, slot, key, payload, shown}, '\t')
    entries[member] = entries[member] and entries[member] .. '\n' .. line or line
    grants[id .. '|' .. member] = member
    result = {here and 'held' or 'dry', found.id, slot}
  end
  return result or wanted == '' and code and no_lane or 'not_found', found
end

local result
for i, member in ipairs(members) do
  local what, again = which[i] + 1, result
  -- Who has nothing hears what the first such heard who asked for the same, if that was a refusal and nothing in it
  -- was the member's own: in one call time stands still, and stock only shrinks.
  result = not entries[member] and to_all[what]
  if not result then
    local nothing, found = not entries[member]
    by_member = false
    result, found = decide(i, member, asked[what])
    if nothing and not found and not by_member then to_all[what] = result end
  end
  if result == again then more = more + 1
  else
    if more > 0 then out[#out + 1], more = more, 0 end
    out[#out + 1] = result
  end
end
if more > 0 then out[#out + 1] = more end

for id, left in pairs(taken) do redis.call('HSET', KEYS[1], 'n:' .. id, left) end
for field in pairs(spent) do redis.call('HSET', KEYS[4], field, bitmaps[field]) end
local held, pending, n = {}, {}, 0
for grant, member in pairs(grants) do
  held[n + 1], held[n + 2], pending[n + 1], pending[n + 2] = member, entries[member], now, grant
  n = n + 2
end
for i = 1, n, 4000 do
  redis.call('HSET', KEYS[2], unpack(held, i, math.min(i + 3999, n)))
  redis.call('ZADD', KEYS[3], unpack(pending, i, math.min(i + 3999, n)))
end
local settled = cmsgpack.unpack(ARGV[3])
for i = 1, #settled, 4000 do redis.call('ZREM', KEYS[3], unpack(settled, i, math.min(i + 3999, #settled))) end
if far then
  local lefts = {}
  for i = 1, #order do lefts[2 * i - 1], lefts[2 * i] = order[i], allocs[i].left end
  out[#out + 1] = lefts
end
return out
