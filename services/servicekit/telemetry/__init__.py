"""Traces, metrics and logs of a service."""

from servicekit.telemetry import environment

environment.prepare_import()  # before any other file here imports OpenTelemetry's API, which reads it at once
