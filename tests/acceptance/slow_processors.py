"""A user's module: a slow processor with a queue of its own beside a fast one."""

import multiprocessing
import signal
import subprocess
import time
from pathlib import Path

from sqlalchemy import Connection, text

from workers import Event, processor

_RECORD = text("INSERT INTO effects (what, event) VALUES (:what, :event)")


@processor("order.created", name="fast")
def fast(event: Event, db: Connection) -> None:
    """Takes no time."""
    db.execute(_RECORD, {"what": "fast", "event": event.id})


@processor("order.created", name="slow", queue="crm", timeout_s=300)
def slow(event: Event, db: Connection) -> None:
    """Takes until somebody lets it end."""
    while not Path("released").exists():
        time.sleep(0.05)
    db.execute(_RECORD, {"what": "slow", "event": event.id})


@processor("tag.added", name="starts", max_attempts=1)
def starts(event: Event, db: Connection) -> None:
    """Starts processes, as user code does, and ends them."""
    program = subprocess.Popen(["sleep", "600"])
    program.terminate()
    assert program.wait() == -signal.SIGTERM
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
    db.execute(_RECORD, {"what": "starts", "event": event.id})
