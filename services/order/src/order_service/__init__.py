"""order-service: takes orders, has them paid, and loses none."""
