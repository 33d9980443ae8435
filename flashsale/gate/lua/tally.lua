#!lua
-- tally: adds what one process has counted of a drop to everybody's counts, and what was refused to its second's row.
-- KEYS[1] counts  KEYS[2] refused
-- ARGV[1] MessagePack {field: how many more...}  ARGV[2] MessagePack {word: how many more were refused...}
-- ARGV[3] time to live of both, ms  ARGV[4] how many rows of seconds there may be; beyond that, minutes are counted
-- Returns now, ms
local now = redis.call('TIME')
for field, more in pairs(cmsgpack.unpack(ARGV[1])) do redis.call('HINCRBY', KEYS[1], field, more) end
local row = now[1]
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[4]) then row = 'm' .. now[1] - now[1] % 60 end
for word, more in pairs(cmsgpack.unpack(ARGV[2])) do redis.call('HINCRBY', KEYS[2], row .. ' ' .. word, more) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return now[1] * 1000 + math.floor(now[2] / 1000)
