"""What is wrong, where, and why (`make why`), from the APIs of Jaeger, Loki and Prometheus alone.

`gather` queries them about the current trouble and about the time before. `diagnose` finds causes in the results, and
sends no requests. `show` prints them. `grade` rates an answer if the true cause is known. `baselines` has three simple
methods for comparison.
"""
