"""Retention: what is removed once it is older than its setting says, and how far that has come."""
