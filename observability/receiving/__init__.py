"""How export requests and log lines come in: for the embedded backend, and for the gateway's telemetry."""
