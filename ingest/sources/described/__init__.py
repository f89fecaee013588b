"""Senders by description: a source is a few lines of TOML. The folder is no source by itself."""
