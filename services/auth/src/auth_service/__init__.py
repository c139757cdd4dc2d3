"""auth-service: checks logins, issues tokens, and publishes the public keys that verify them."""
