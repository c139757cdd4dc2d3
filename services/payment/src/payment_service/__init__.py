"""payment-service: charges each order once, through a simulated payment processor."""
