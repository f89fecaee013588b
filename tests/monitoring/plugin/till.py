"""A sender that does not send again what was refused, and whose plugin has a bug."""

from ingest.sources.awalchat import Plugin
from ingest.sources.base import Retries, WebhookRequest

_BUG = b"the bug"


class Till(Plugin):
    """The source `till`."""

    slug = "till"
    title = "Till"
    read_model = None  # type: ignore[assignment]  # the base class has one
    retries = Retries(waits_s=())

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        if _BUG in request.body:
            raise RuntimeError("a bug")
        return super().verify(request, now=now)
