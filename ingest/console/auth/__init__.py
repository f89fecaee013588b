"""Authentication and authorization for the console: who asks, and what they may do."""
