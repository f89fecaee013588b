"""The error that keeps `ingest up` from starting."""

from ingest.errors import IngestError


class EmbeddedError(IngestError):
    """A server or its folder cannot be used. The message says what to do about it."""
