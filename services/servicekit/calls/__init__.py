"""What goes out to other services."""
