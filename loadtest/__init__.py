"""The load test: Locust on the order path, and the books afterwards. `python -m loadtest --help`, docs/load.md."""
