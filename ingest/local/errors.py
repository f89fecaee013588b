"""What can keep `ingest up` from starting."""

from ingest.errors import IngestError


class EmbeddedError(IngestError):
    """A server or the folder it needs cannot be used; the message says what to do about it."""
