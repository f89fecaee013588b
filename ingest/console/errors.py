"""The console's own errors."""

from ingest.errors import IngestError


class BadRequest(IngestError):
    """What was asked makes no sense: 400."""


class NotPossible(IngestError):
    """It makes sense, and cannot be done now: 409."""
