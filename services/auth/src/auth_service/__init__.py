"""auth-service: turns credentials into tokens, and publishes the keys that verify them."""
