"""The console: web pages that show the shop and its telemetry, read from the backends' HTTP APIs."""
