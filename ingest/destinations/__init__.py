"""Destinations: HTTP endpoints that events are forwarded to, described in TOML."""
