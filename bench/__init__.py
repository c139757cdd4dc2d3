"""Measures how many orders the shop takes and what telemetry costs, side by side (`python -m bench --help`)."""
