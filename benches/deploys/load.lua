-- For wrk: scores customers one after the other, each connection with a pause between an answer and the next
-- question, so that the load is steady and not all that the machine can do. Prints the figures as a line of JSON.

local customers = tonumber(os.getenv("BENCH_CUSTOMERS"))
local pause = tonumber(os.getenv("BENCH_PAUSE_MS"))
local last = 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
  last = last % customers + 1
  return wrk.format(nil, nil, nil, string.format('{"customer_id":"C-%d","models":["churn","big"]}', last))
end

function delay()
  return pause
end

function done(summary, latency)
  local seconds, errors = summary.duration / 1e6, summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"rps":%.1f,"p50_ms":%.4f,"p99_ms":%.4f,"p999_ms":%.4f,"max_ms":%.4f,"failed":%d}\n',
    summary.requests, summary.requests / seconds,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
