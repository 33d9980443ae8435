#!lua
-- arm_chunk: adds fields to a staging that was begun; a staging that is gone stays gone.
-- KEYS[1] staging
-- ARGV[1] MessagePack [field, value...]
-- Returns "lost" | "ok"
if redis.call('HEXISTS', KEYS[1], '#') == 0 then return 'lost' end
local fields = cmsgpack.unpack(ARGV[1])
for i = 1, #fields, 4000 do
  redis.call('HSET', KEYS[1], unpack(fields, i, math.min(i + 3999, #fields)))
end
return 'ok'
