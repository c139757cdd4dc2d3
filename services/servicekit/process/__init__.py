"""The process of a service: gunicorn's configuration and worker, background tasks, a container's health check."""
