-- For wrk: asks with the bodies in the file $BENCH_BODIES, one per line, in turn, or for the paths in the file
-- $BENCH_PATHS (GET of wrk's own address when neither is set), and prints the figures as one line of JSON.

local requests, last = {}, 0

function init()
  local bodies, paths = os.getenv("BENCH_BODIES"), os.getenv("BENCH_PATHS")
  if paths then
    for path in io.lines(paths) do
      requests[#requests + 1] = wrk.format("GET", path)
    end
    return
  end
  if not bodies then
    requests[1] = wrk.format("GET")
    return
  end
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(bodies) do
    requests[#requests + 1] = wrk.format("POST", nil, nil, body)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local seconds, errors = summary.duration / 1e6, summary.errors
  local good = summary.requests - errors.status
  io.write(string.format(
    '\nRESULT {"requests":%d,"rps":%.2f,"p50_ms":%.4f,"p99_ms":%.4f,"max_ms":%.4f,"errors":%d}\n',
    good, good / seconds,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
