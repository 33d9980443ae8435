#!lua flags=no-writes
-- counts: everything that all processes have counted under a key, and when that was read.
-- KEYS[1] counts, or refused
-- ARGV none
-- Returns [now ms, field, value...]
local now = redis.call('TIME')
local out = redis.call('HGETALL', KEYS[1])
table.insert(out, 1, now[1] * 1000 + math.floor(now[2] / 1000))
return out
