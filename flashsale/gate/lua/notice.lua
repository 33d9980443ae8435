#!lua
-- notice: puts a note on a board that all processes read, and takes away those that nobody has renewed.
-- KEYS[1] board
-- ARGV[1] name of the note; empty: only read  ARGV[2] its text; empty: take it away  ARGV[3] how long a note lives, ms
-- Returns [now ms, name, text...] of the notes that live
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '' then
  if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
  else
    redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
end
local notes, out = redis.call('HGETALL', KEYS[1]), {now}
for i = 1, #notes, 2 do
  local at, text = string.match(notes[i + 1], '^(%d+) (.*)$')
  if now - at > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], notes[i])
  else out[#out + 1], out[#out + 2] = notes[i], text end
end
return out
