"""product-service: the catalogue."""
