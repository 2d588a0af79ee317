-- For wrk: asks with the bodies in the file $BENCH_BODIES, one per line, in turn, each connection after a pause of
-- $BENCH_PAUSE_MS on average, so that the load is the same whatever the server's speed; prints the figures as one
-- line of JSON.

local requests, last = {}, 0
local pause = tonumber(os.getenv("BENCH_PAUSE_MS"))

function init()
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(os.getenv("BENCH_BODIES")) do
    requests[#requests + 1] = wrk.format("POST", nil, nil, body)
  end
end

function delay()
  -- Not all connections at once.
  return math.random(1, math.max(1, 2 * pause - 1))
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"rps":%.1f,"p50_ms":%.4f,"p99_ms":%.4f,"p999_ms":%.4f,"max_ms":%.4f,"errors":%d}\n',
    summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    latency.max / 1e3, errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
