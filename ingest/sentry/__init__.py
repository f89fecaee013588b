"""Dead letters told to Sentry, an extra. Only `ingest.sentry.start` may be imported while it is
off."""
