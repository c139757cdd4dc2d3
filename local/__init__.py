"""Local mode: the whole system on one machine, without Docker and without root (`python -m local --help`)."""
