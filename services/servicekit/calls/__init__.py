"""Calls to other services by HTTP."""
