#!lua
-- arm_chunk: adds fields to a staging that was begun; a staging that is gone stays gone.
-- KEYS[1] staging  KEYS[2..] other stagings of the same rebuild, to be kept as long as this one
-- ARGV[1] MessagePack [field, value...]  ARGV[2] how long the stagings may live from now on, ms
-- Returns "lost" | "ok"
if redis.call('HEXISTS', KEYS[1], '#') == 0 then return 'lost' end
local fields = cmsgpack.unpack(ARGV[1])
for i = 1, #fields, 4000 do
  redis.call('HSET', KEYS[1], unpack(fields, i, math.min(i + 3999, #fields)))
end
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return 'ok'
