"""Traces by OpenTelemetry, an extra. Only `ingest.tracing.start` is imported while it is off."""
