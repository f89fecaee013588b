"""A user's processors, which fail in the ways that alerts are about, as long as there is a flag."""

import os
from pathlib import Path

from sqlalchemy import Connection

from workers import Event, Snooze, processor

LATE_S = 65
"""A call that is put off for so long is later than `IngestLagHigh` allows."""
_AN_HOUR_S = 3_600
_OFTEN = 1_000


def is_flagged(name: str) -> bool:
    """Return whether a fault is on."""
    return Path(os.environ["MONITORING_FLAGS"], name).exists()


@processor("order.created", name="orders")
def take_order(_event: Event, _db: Connection) -> None:
    """Never fail."""


@processor("invoice.made", name="invoices")
def take_invoice(_event: Event, _db: Connection) -> None:
    """Never fail: it is paused."""


@processor("card.charged", name="cards", max_attempts=1)
def charge(_event: Event, _db: Connection) -> None:
    """Fail for good."""
    if is_flagged("cards"):
        raise ConnectionError("the bank is away")


@processor("stock.changed", name="stock", max_attempts=_OFTEN, retry_max_delay_s=0.5)
def change_stock(_event: Event, _db: Connection) -> None:
    """Fail again and again."""
    if is_flagged("stock"):
        raise ConnectionError("the warehouse is away")


@processor("contact.synced", name="contacts")
def synchronise(event: Event, _db: Connection) -> None:
    """Come late."""
    if event.attempt == 1:
        raise Snooze(LATE_S)


@processor("report.asked", name="reports")
def report(_event: Event, _db: Connection) -> None:
    """Do not get done."""
    if is_flagged("reports"):
        raise Snooze(_AN_HOUR_S)


@processor("file.converted", name="files", max_attempts=_OFTEN)
def convert(_event: Event, _db: Connection) -> None:
    """Take the process along."""
    if is_flagged("files"):
        os._exit(1)
