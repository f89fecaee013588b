"""The operator's web console: its own ASGI application on its own port."""
