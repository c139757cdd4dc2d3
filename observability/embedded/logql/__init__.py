"""LogQL: a grammar, the tree that it makes, and what computes a query from a source of log lines."""
