"""Shows one order or one trace: its database row, its spans as a tree, its log lines (`make story ORDER=7`).

It asks the database and the APIs of Jaeger and Loki, and works the same with the embedded backend.
"""
