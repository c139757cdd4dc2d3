"""A pool of connections to PostgreSQL, and PostgreSQL's own statistics as metrics."""
