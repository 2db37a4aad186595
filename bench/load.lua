-- What wrk sends, chosen by the arguments after "--":
--   same METHOD                     one request again and again (wrk's fast path)
--   list METHOD FILE                the paths in FILE, over and over
--   once METHOD FILE                the paths in FILE, each once
--   upload METHOD PATH SIZE SEED    a body of SIZE bytes that differs every time; {digest} and {d2} in PATH
--                                   become 32 hex digits that differ as well, and the first two of them
-- At the end one line "BENCH {json}" that bench/wrk.py reads.
local ffi = require('ffi')
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_time;
  int clock_gettime(int clock, bench_time *out);
]]
local CLOCK_MONOTONIC = 1
local clock = ffi.new('bench_time')

local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, clock)
  return tonumber(clock.seconds) + tonumber(clock.nanoseconds) * 1e-9
end

-- read by done() through thread:get, hence global; only `once` sets them
first_sent, last_sent, sent = nil, nil, 0

local function read_paths(name)
  local paths = {}
  for line in io.lines(name) do paths[#paths + 1] = line end
  return paths
end

local function over_and_over(paths)
  local n = 0
  return function()
    n = n % #paths + 1
    return wrk.format(nil, paths[n])
  end
end

local function each_once(paths)
  return function()
    if sent == 0 then first_sent = now() end
    if sent == #paths then
      -- wrk wants a request even now; the few that repeat the last path are answered 404
      wrk.thread:stop()
    else
      sent = sent + 1
      last_sent = now()
    end
    return wrk.format(nil, paths[sent])
  end
end

local function ever_new(path, size, seed)
  local filler = string.rep('0123456789abcde\n', size / 16 + 1):sub(1, size - 32)
  local n = 0
  math.randomseed(tonumber(seed, 16))
  return function()
    n = n + 1
    -- random digits first: they choose the folder, and real digests spread over all of them
    local key = string.format('%02x%02x%012x%s', math.random(0, 255), math.random(0, 255), n, seed)
    local address = path:gsub('{digest}', key):gsub('{d2}', key:sub(1, 2))
    return wrk.format(nil, address, nil, key .. filler)
  end
end

local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  local mode = args[1]
  wrk.method = args[2]
  if mode == 'list' then request = over_and_over(read_paths(args[3])) end
  if mode == 'once' then request = each_once(read_paths(args[3])) end
  if mode == 'upload' then request = ever_new(args[3], tonumber(args[4]), args[5]) end
end

function done(summary, latency)
  local requests, seconds = summary.requests, summary.duration / 1e6
  local start, stop = threads[1]:get('first_sent'), threads[1]:get('last_sent')
  if start and stop then requests, seconds = threads[1]:get('sent'), stop - start end
  local errors = summary.errors
  print(string.format(
    'BENCH {"requests": %d, "seconds": %f, "bytes": %d, "refused": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}',
    requests, seconds, summary.bytes, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
