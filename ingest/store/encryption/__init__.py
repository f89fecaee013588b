"""Encrypted bodies in the database: reading them, beginning with a key, and changing keys."""
