"""Erasing a person: everything that is stored about them, across all sources."""
