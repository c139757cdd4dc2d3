"""Makes a Flask app observable (traces, metrics, logs, health checks), and has the other parts services need."""
