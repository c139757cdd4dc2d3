"""Grafana: where its data comes from (`provisioning/`), and its dashboards as code.

`make dashboards` writes `dashboards/*.json`, which is what Grafana reads, from the modules here. Each of `overview`,
`order_path`, `service`, `database`, `telemetry` and `load` has one dashboard; they are made with
`queries`, `panels` and `board`.
"""
