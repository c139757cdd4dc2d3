"""One order, or one trace, as a story: its row, its spans as a tree, its log lines (`make story ORDER=7`).

It asks the database, Jaeger's API and Loki's API, and does not know whether the embedded backend or the real ones
answer.
"""
