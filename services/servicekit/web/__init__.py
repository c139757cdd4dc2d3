"""What comes in: the app and its routes, errors, the OpenAPI document, pages of lists, the names it answers to."""
