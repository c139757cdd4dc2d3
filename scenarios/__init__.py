"""Scenarios for practice: each switches a fault on under load. Users must feel it, and the telemetry must show it."""
