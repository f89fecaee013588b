"""Processors whose effects can be counted twice, and one that is poison.

Worker processes import this; it fails to import while the flag `import` is there.
"""

import ctypes
import os
import signal
import threading
from pathlib import Path

from sqlalchemy import Connection, text

from ingest.sources.awalchat import samples
from workers import Event, processor

_CALL_S = 0.01
POISON_TYPE = "contact.updated"

CREATE_COUNTERS = """
    CREATE TABLE counters (event uuid PRIMARY KEY, times integer NOT NULL)
"""

CREATE_LINES = """
    CREATE TABLE lines (
        event uuid PRIMARY KEY, line text NOT NULL, began timestamptz NOT NULL,
        ended timestamptz NOT NULL
    )
"""

ORDERED = "FAULTS_ORDERED"
"""Set, there are a processor with an order and one with a limit, too."""
LIMIT = 3
CREATE_HOLDS = """
    CREATE TABLE holds (
        event uuid PRIMARY KEY, began timestamptz NOT NULL, ended timestamptz NOT NULL
    )
"""

_COUNT = text(
    "INSERT INTO counters (event, times) VALUES (:event, 1)"
    " ON CONFLICT (event) DO UPDATE SET times = counters.times + 1"
)

_NOW = text("SELECT clock_timestamp()")
_NOTE = text("INSERT INTO lines VALUES (:event, :line, :began, clock_timestamp())")
_HOLD = text("INSERT INTO holds VALUES (:event, :began, clock_timestamp())")
_ENTRY_LINES = 20

if Path(os.environ.get("FAULTS_FLAGS", "."), "import").exists():
    raise ImportError("a bad deploy")


@processor(*samples.types(), name="counter")
def count(event: Event, db: Connection) -> None:
    """Through `db`: once, whatever happens."""
    db.execute(_COUNT, {"event": event.id})


@processor("entry.posted", name="entries", retry_base_s=0.5)
def count_entry(event: Event, db: Connection) -> None:
    """Count an element of a batch, whose neighbours are worked on beside it. Some kill the worker
    once, after what they have written."""
    db.execute(_COUNT, {"event": event.id})
    if event.data.get("kills") and event.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def line_of(event: Event) -> str:
    """Return the line that an event stands in: a conversation, or one of a few for entries."""
    if event.type == "entry.posted":
        return f"entries {event.data['number'] % _ENTRY_LINES}"
    return f"conversation {event.data['conversation_id']}"


@processor("order.created", name="outside")
def write_outside(event: Event, db: Connection) -> None:
    """Outside PostgreSQL: at least once, with the key to tell repeats by."""
    descriptor = os.open(os.environ["FAULTS_OUTSIDE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{event.idempotency_key}\n".encode())
    finally:
        os.close(descriptor)
    # The moment in which a fault makes the effect a repeated one. Not by time.sleep, which fails
    # under libfaketime (EINVAL).
    threading.Event().wait(_CALL_S)


@processor(POISON_TYPE, name="poison", max_attempts=2, timeout_s=2, retry_base_s=0.5)
def poison(event: Event, db: Connection) -> None:
    """Does what the event says, once it has written something that must not stay."""
    what = event.data.get("poison")
    if what not in (None, "memory"):
        db.execute(_COUNT, {"event": event.id})
    match what:
        case "exit":
            os._exit(1)
        case "segfault":
            ctypes.string_at(0)
        case "loop":
            while True:
                pass
        case "stuck":  # holds the GIL and takes no signal
            ctypes.PyDLL(None).sleep(3_600)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            bytearray(2 * 1024**3)


def note_place(event: Event, db: Connection) -> None:
    """Note when the event was worked on. A few fail at first, and hold up their line."""
    began = db.execute(_NOW).scalar_one()
    if event.attempt == 1 and event.id.endswith("00"):
        raise RuntimeError("the first attempt of one in 256")
    db.execute(_NOTE, {"event": event.id, "line": line_of(event), "began": began})


def note_hold(event: Event, db: Connection) -> None:
    """Note from when to when the event was worked on. A few fail at first."""
    began = db.execute(_NOW).scalar_one()
    if event.attempt == 1 and event.id.endswith("00"):
        raise RuntimeError("the first attempt of one in 256")
    db.execute(_HOLD, {"event": event.id, "began": began})


if os.environ.get(ORDERED):
    processor(
        "message.received", "entry.posted", name="in_order", ordered_by=line_of, retry_base_s=0.2
    )(note_place)
    processor("order.status.updated", name="limited", concurrency=LIMIT, retry_base_s=0.2)(
        note_hold
    )
