#!lua
-- elig_finish: renames a complete set of eligible members into place.
-- KEYS[1] staging  KEYS[2] elig
-- ARGV[1] how many fields the staging must hold  ARGV[2] time to live, ms
-- Returns "lost" | "ok"
if redis.call('HEXISTS', KEYS[1], '#') == 0 or redis.call('HLEN', KEYS[1]) ~= ARGV[1] + 1 then return 'lost' end
redis.call('HSET', KEYS[1], '#', ARGV[1])
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 'ok'
