"""Handling of requests: the Flask app, errors, validation, OpenAPI, pages of lists, the check of `Host`."""
