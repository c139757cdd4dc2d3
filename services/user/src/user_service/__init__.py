"""user-service: stores users and checks their passwords."""
