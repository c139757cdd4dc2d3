"""A small replacement of Jaeger and Loki: one process, one SQLite file (docs/embedded-backend.md)."""
