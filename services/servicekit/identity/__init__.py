"""Who is asking, and as whom this service asks others."""
