"""order-service: stores orders and lets payment-service charge each of them once."""
