#!lua
-- tries: counts failed tries of F-codes, each subject in a window that its first one begins.
-- KEYS[1..n] one counter per subject, a few hundred at most
-- ARGV[1] window, ms  ARGV[2] how many more of each, MessagePack [count...]; 0 only asks
-- Returns [total, ms left of the window...], in the order of KEYS; 0, 0 for one that has no window
local counts, more, window = redis.call('MGET', unpack(KEYS)), cmsgpack.unpack(ARGV[2]), tonumber(ARGV[1])
local out = {}
for i, key in ipairs(KEYS) do
  local total, left = tonumber(counts[i] or more[i]), window
  if counts[i] then
    if more[i] > 0 then total = redis.call('INCRBY', key, more[i]) end
    left = redis.call('PTTL', key)
  elseif total > 0 then
    redis.call('SET', key, total, 'PX', window)
  else
    left = 0
  end
  out[2 * i - 1], out[2 * i] = total, left
end
return out
