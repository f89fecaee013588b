"""Authentication and authorization for the console."""
