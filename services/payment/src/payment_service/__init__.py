"""payment-service: charges, each one once, through a simulated processor."""
