"""A sender that does not send again what was refused, and whose plugin has a bug."""

from ingest.sources.awalchat import Plugin
from ingest.sources.base import Envelope, Retries

_BUG = b"the bug"


class Till(Plugin):
    """The source `till`."""

    slug = "till"
    title = "Till"
    read_model = None  # type: ignore[assignment]  # the base class has one
    retries = Retries(waits_s=())

    def parse(self, body: bytes) -> Envelope:
        """Fail once the request is verified: a stranger's is nobody's loss."""
        if _BUG in body:
            raise RuntimeError("a bug")
        return super().parse(body)
