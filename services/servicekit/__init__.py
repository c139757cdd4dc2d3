"""What every service of the shop shares, and nothing that only one of them needs."""
