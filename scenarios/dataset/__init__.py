"""Writes runs of scenarios as a data set: their telemetry, and the true causes."""
