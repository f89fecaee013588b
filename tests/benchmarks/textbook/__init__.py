"""The same service as the guides of Starlette, SQLAlchemy and Celery would have it written."""
