-- press: sends each request of a file once, in order, and tells whether every answer was an expected one.
-- Arguments: the file, the length in bytes of each of its requests, the status and a word of the body that are wanted,
-- and, where answers of a second kind are right, too, their status and word.
-- Reading as it goes costs a read(2) every ten requests and no start-up; formatting would cost more than pressing.
-- Writes lines "= name value" at the end; times in microseconds.
local file, length, status_wanted, word, second_status, second_word
expected, second, unexpected, first_unexpected, exhausted = 0, 0, 0, '', false

function init(args)
  file, length = assert(io.open(args[1], 'rb')), tonumber(args[2])
  status_wanted, word = tonumber(args[3]), args[4] or ''
  second_status, second_word = tonumber(args[5] or ''), args[6] or ''
end

function request()
  local next_request = file:read(length)
  if not next_request or #next_request < length then
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
  elseif status == second_status and string.find(body, second_word, 1, true) then
    second = second + 1
  else
    unexpected = unexpected + 1
    if unexpected == 1 then first_unexpected = status .. ' ' .. string.gsub(string.sub(body, 1, 300), '%s+', ' ') end
  end
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary, latency)
  local function tell(name, value) io.write('= ', name, ' ', tostring(value), '\n') end
  local thread, errors = threads[1], summary.errors
  tell('requests', summary.requests)
  tell('duration_us', summary.duration)
  tell('p50_us', latency:percentile(50))
  tell('p99_us', latency:percentile(99))
  tell('broken', errors.connect + errors.read + errors.write + errors.timeout)
  tell('expected', thread:get('expected'))
  tell('second', thread:get('second'))
  tell('unexpected', thread:get('unexpected'))
  tell('first_unexpected', thread:get('first_unexpected'))
  tell('exhausted', thread:get('exhausted'))
end
