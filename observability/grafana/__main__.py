"""Writes the dashboards: `python -m observability.grafana`, or `make dashboards`."""

from observability.grafana.files import write

write()
