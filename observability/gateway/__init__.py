"""The gateway's telemetry, made from nginx's access log: its metrics always, its spans where nginx makes none.

From the log, because that is the one place that knows route, status, duration and trace id of every request, those
that reached no service included. An exporter over `stub_status` knows connections and one counter of requests: no
route, no status, no latency, no exemplar.

It keeps nothing: what it was told is in Prometheus and in the traces' backend a moment later.
"""
