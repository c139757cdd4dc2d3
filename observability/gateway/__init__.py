"""Makes the gateway's metrics from nginx's access log, and its spans too where nginx makes none.

It reads the log because only the log has route, status, duration and trace id of every request, including those that
reached no service. An exporter that reads `stub_status` has the number of connections and one counter of requests: no
route, no status, no latency, no exemplar.

It stores nothing: its metrics are in Prometheus and its spans in the traces' backend a moment later.
"""
