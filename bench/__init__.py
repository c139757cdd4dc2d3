"""What the shop takes and what telemetry costs, measured side by side (`python -m bench --help`)."""
