"""The load test: Locust places orders, and afterwards orders and charges in the database are checked.

`python -m loadtest --help`, docs/load.md.
"""
