"""Receives OTLP requests and reads log files, for the embedded backend and for the gateway's telemetry."""
