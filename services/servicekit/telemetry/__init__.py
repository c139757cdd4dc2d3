"""What a service tells about itself: traces, metrics, logs."""

from servicekit.telemetry import environment

environment.prepare_import()  # before any other file here imports OpenTelemetry's API, which reads it at once
