"""A second sender, which puts many events in one request, and what became of each of them."""

import hashlib
import hmac
import http.client
import json
import threading
from random import Random
from typing import Any

from sqlalchemy import Engine, text

from tests.faults.world import LEDGER_SECRET, World

_NEW = 20
_KNOWN = 10
"""Entries of a request: so many new ones, so many of requests before."""
_KILLS = 0.1
"""The share of requests one of whose entries kills the worker that works on it."""
_PAUSE_S = 0.2
_TIMEOUT_S = 30.0


class BatchSender:
    """Sends batches one after another, each until it is answered 200, from `start` to `stop`."""

    def __init__(self, world: World, *, first: int, random: Random) -> None:
        """Make a sender whose entries are numbered from `first`."""
        self._port = world.port
        self._next = self._first = first
        self._random = random
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self.acknowledged: set[int] = set()
        """The numbers of the entries in requests that were answered 200."""

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more; the request that is under way ends first."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE_S):
            entries = self._entries()
            body = json.dumps({"entries": [*entries, {"kind": None}]}).encode()
            while not (accepted := self._post(body)) and not self._stopping.wait(_PAUSE_S):
                pass
            if accepted:
                self.acknowledged |= {entry["number"] for entry in entries}

    def _entries(self) -> list[dict[str, Any]]:
        new = range(self._next, self._next + _NEW)
        known = range(self._first, self._next)
        self._next += _NEW
        entries: list[dict[str, Any]] = [
            {"kind": "entry.posted", "number": number} for number in new
        ]
        if self._random.random() < _KILLS:
            self._random.choice(entries)["kills"] = True
        repeated = self._random.sample(known, min(_KNOWN, len(known)))
        entries += [{"kind": "entry.posted", "number": number} for number in repeated]
        self._random.shuffle(entries)
        return entries

    def _post(self, body: bytes) -> bool:
        digest = hmac.new(LEDGER_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Ledger-Signature": f"sha256={digest}"}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", "/webhooks/ledger", body, headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def problems(engine: Engine, acknowledged: set[int]) -> list[str]:
    """Return what is wrong with the entries that were acknowledged, in sentences."""
    with engine.connect() as connection:
        rows = connection.execute(_ENTRIES).all()
    times = {int(row.event_id.rpartition(":")[2]): row.times for row in rows if row.is_done}
    lost = [number for number in acknowledged if not times.get(number)]
    twice = [number for number in acknowledged if times.get(number, 0) > 1]
    found = {"lost": lost, "worked on twice": twice}
    return [
        f"{len(numbers)} of {len(acknowledged)} entries of batches were {what}, as {numbers[0]}"
        for what, numbers in found.items()
        if numbers
    ]


_ENTRIES = text(
    """
    SELECT e.event_id, coalesce(max(c.times), 0) AS times,
           bool_and(coalesce(j.state = 'succeeded', false)) AS is_done
    FROM events e LEFT JOIN jobs j ON j.event = e.id LEFT JOIN counters c ON c.event = e.id
    WHERE e.source = 'ledger' GROUP BY e.id
    """
)
