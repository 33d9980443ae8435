-- press: sends each request of a file once, in order, and tells whether every answer was an expected one.
-- Arguments: the file, the length in bytes of each of its requests, the status and a word of the body that are wanted,
-- and, where answers of a second kind are right, too, their status and word; last, where each request shall have its
-- answer, how many answers to wait for: the file holds one request more, since wrk asks for one that it never sends.
-- Reading as it goes costs a read(2) every ten requests and no start-up; formatting would cost more than pressing.
-- Writes lines "= name value" at the end; times in microseconds.
local ffi = require('ffi')
ffi.cdef('typedef struct {long s; long ns;} moment; int clock_gettime(int, moment *); int getpid(void); int kill(int, int);')
local MONOTONIC, SIGINT = ffi.os == 'OSX' and 6 or 1, 2
local file, length, status_wanted, word, second_status, second_word
local moment, asked, began_us = ffi.new('moment'), 0, 0
expected, second, unexpected, first_unexpected, exhausted = 0, 0, 0, '', false
answers_wanted, first_us, ended_us = nil, 0, 0

local function now_us()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.s) * 1e6 + math.floor(tonumber(moment.ns) / 1000)
end

function init(args)
  file, length = assert(io.open(args[1], 'rb')), tonumber(args[2])
  status_wanted, word = tonumber(args[3]), args[4] or ''
  second_status, second_word = tonumber(args[5] or ''), args[6] or ''
  answers_wanted = tonumber(args[7] or '')
end

function request()
  local next_request = file:read(length)
  asked = asked + 1
  if asked == 2 then began_us = now_us() end -- the first is never sent
  if not next_request or #next_request < length then
    if answers_wanted then return '' end -- nothing is sent: this connection has done its part
    exhausted = true
    wrk.thread:stop()
    file:seek('set', 0) -- something must be sent; the measurement is void anyhow
    return file:read(length)
  end
  return next_request
end

function response(status, _, body)
  if status == status_wanted and string.find(body, word, 1, true) then
    expected = expected + 1
    if answers_wanted then first_us = now_us() - began_us end
  elseif status == second_status and string.find(body, second_word, 1, true) then
    second = second + 1
  else
    unexpected = unexpected + 1
    if unexpected == 1 then first_unexpected = status .. ' ' .. string.gsub(string.sub(body, 1, 300), '%s+', ' ') end
  end
  if answers_wanted and expected + second + unexpected == answers_wanted then
    ended_us = now_us() - began_us
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), SIGINT) -- or wrk would sleep until its time is over
  end
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary, latency)
  local thread, errors = threads[1], summary.errors
  local ended_us = thread:get('ended_us')
  local told = {requests = summary.requests, duration_us = ended_us > 0 and ended_us or summary.duration}
  told.broken, told.max_us = errors.connect + errors.read + errors.write + errors.timeout, latency.max
  for name, percent in pairs({p50 = 50, p99 = 99, p999 = 99.9}) do told[name .. '_us'] = latency:percentile(percent) end
  local counted = {'expected', 'second', 'unexpected', 'first_unexpected', 'exhausted', 'first_us', 'answers_wanted'}
  for _, name in ipairs(counted) do told[name] = thread:get(name) end
  for name, value in pairs(told) do io.write('= ', name, ' ', tostring(value), '\n') end
end
