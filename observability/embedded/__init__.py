"""A small stand-in for Jaeger and Loki: one process, one SQLite file. What it is for: docs/embedded-backend.md."""
