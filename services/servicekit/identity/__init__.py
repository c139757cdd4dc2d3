"""Verifies the tokens of users and services, hashes passwords, and gets the service's own tokens for its calls."""
