-- Places orders, and counts the answers by status. At the end it prints a line of JSON, for wrk.py.
-- Arguments: the token.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  created, others = 0, ""
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.body = '{"product_id": 1}'
  order = wrk.format()
end

function request()
  return order
end

function response(status)
  if status == 201 then
    created = created + 1
  elseif #others < 400 then
    others = others .. status .. " "
  end
end

function done(summary, latency)
  local orders, statuses = 0, ""
  for _, thread in ipairs(threads) do
    orders = orders + thread:get("created")
    statuses = statuses .. thread:get("others")
  end
  local failed = summary.errors
  io.write(string.format(
    '{"orders": %d, "answers": %d, "others": "%s", "errors": %d, "seconds": %.6f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}\n',
    orders, summary.requests, statuses, failed.connect + failed.read + failed.write + failed.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3
  ))
end
