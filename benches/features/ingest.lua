-- For wrk: sends batches of a thousand new events as NDJSON, over 100,000 customers, each event with an id of its
-- own. $BENCH_RUN makes the ids differ from those of other runs. Prints the figures as one line of JSON.

local BATCH, CUSTOMERS = 1000, tonumber(os.getenv("BENCH_CUSTOMERS") or "100000")
local run, sent, customer = os.getenv("BENCH_RUN") or "run", 0, 0
local lines, second, now = {}, 0, ""

function init()
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/x-ndjson"
end

function request()
  local time = os.time()
  if time ~= second then
    second = time
    now = os.date("!%Y-%m-%dT%H:%M:%SZ", time)
  end
  for line = 1, BATCH do
    sent = sent + 1
    -- A step that shares no factor with the number of customers visits all of them in a scattered order.
    customer = (customer + 61803) % CUSTOMERS
    lines[line] = '{"event_id":"' .. run .. "-" .. sent .. '","event":"usage","customer_id":"c' .. customer
      .. '","occurred_at":"' .. now .. '","properties":{"mb":' .. (sent % 1000) .. ',"channel":"web"}}'
  end
  return wrk.format(nil, nil, nil, table.concat(lines, "\n"))
end

function done(summary, latency)
  local errors = summary.errors
  local good = summary.requests - errors.status
  local seconds = summary.duration / 1e6
  io.write(string.format(
    '\nRESULT {"requests":%d,"events_per_s":%.0f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"errors":%d}\n',
    good, good * BATCH / seconds,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
