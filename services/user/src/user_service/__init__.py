"""user-service: who the customers are, and whether a password is theirs."""
