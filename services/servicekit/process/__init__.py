"""How a service runs: the server, its worker, background tasks, the health check."""
