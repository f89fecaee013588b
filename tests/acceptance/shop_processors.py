"""A user's own module of processors, as the acceptance tests plug it in.

Its effects are rows of `effects`, through `db`. What an order does is in its `note`.
"""

import ctypes
import os
import time

from sqlalchemy import Connection, text

from workers import Discard, Event, Snooze, processor


def record(event: Event, db: Connection, what: str) -> None:
    db.execute(
        text("INSERT INTO effects (what, event, attempt) VALUES (:what, :event, :attempt)"),
        {"what": what, "event": event.id, "attempt": event.attempt},
    )


@processor("order.created", name="ledger")
def ledger(event: Event, db: Connection) -> None:
    """Never fails: the neighbour that must not be harmed."""
    record(event, db, "ledger")


@processor("order.created", name="whims", max_attempts=3)
def whims(event: Event, db: Connection) -> None:
    """Does what the order says."""
    record(event, db, "whims")
    note = event.data.get("note")
    if note == "fails twice" and event.attempt < 3:
        raise ConnectionError("the CRM is away")
    if note == "fails" and os.path.exists("broken"):  # noqa: PTH110 - mended by removing the file
        raise ConnectionError("the CRM is away")
    if note == "exits":
        os._exit(1)
    if note == "loops":
        while True:
            pass
    if note == "swallows":
        while True:
            try:
                while True:
                    pass
            except BaseException:  # noqa: S110 - as hostile as it gets
                pass
    if note == "discards":
        raise Discard("not for us")
    if note == "snoozes" and event.attempt == 1:
        raise Snooze(0.2)


@processor("conversation.created", name="waits", threads=4, max_attempts=2)
def waits(event: Event, db: Connection) -> None:
    """Waits for something outside, as its conversation says."""
    record(event, db, "waits")
    if event.data.get("note") == "hangs":
        time.sleep(3_600)
    if event.data.get("note") == "holds":  # the GIL, and takes no signal
        ctypes.PyDLL(None).sleep(3_600)


@processor("contact.created", name="stalls")
def stalls(event: Event, db: Connection) -> None:
    """Its first attempt waits for as long as there is a file."""
    record(event, db, "stalls")
    while event.attempt == 1 and os.path.exists("stall"):  # noqa: PTH110
        time.sleep(0.02)
