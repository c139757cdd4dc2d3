"""What the shop takes and what telemetry costs, measured side by side (`python -m loadtest.bench --help`)."""
