"""Log-in by OpenID Connect, an extra: nothing of its library is imported before it is wanted."""
