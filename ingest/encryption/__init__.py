"""Encryption of stored bodies, as an option: the keys, and what they do to a body."""
