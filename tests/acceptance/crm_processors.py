"""A user's module: a processor that calls a service, and waits while that is down."""

import os
import urllib.request

from sqlalchemy import Connection

from workers import Breaker, Event, processor

AFTER = 10


@processor(
    "order.created",
    name="crm",
    threads=4,
    breaker=Breaker(after=AFTER, probe_every_s=float(os.environ.get("CRM_PROBE_EVERY_S", "30"))),
)
def crm(event: Event, db: Connection) -> None:
    """Tell the CRM of an order."""
    address = os.environ["CRM_URL"]
    request = urllib.request.Request(address, data=event.event_id.encode())  # noqa: S310
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310
        pass
