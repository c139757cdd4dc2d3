"""The console: pages that show the shop and its telemetry, one more client of their APIs."""
