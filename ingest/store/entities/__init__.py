"""Statements about one entity: its events, its rows in the read model, and its erasure."""
