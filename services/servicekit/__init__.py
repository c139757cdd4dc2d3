"""Makes a Flask app an observable service: traces, metrics, logs, health, and what services need of each other."""
