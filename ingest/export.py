"""An export: what a search means as CSV or JSON lines, in batches, so that neither memory nor
PostgreSQL notices its size. The audit log says whose it was and how far it got.

CSV is for spreadsheets: it begins with a byte order mark, and no cell is a formula. JSON lines are
for programs: an object a line, a body as the JSON that it is, or as text where it is none.
"""

import codecs
import csv
import enum
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from ingest import strict_json
from ingest.store import exports
from ingest.store.reports.audit_log import Author
from ingest.store.search.events import ListedEvent, batches
from ingest.store.search.exported_bodies import ExportedBody, bodies
from ingest.store.search.filters import EventFilter

FIRST_BATCH, BATCH = 50, 500
"""Rows of the first batch, so that the first byte comes soon, and of the others."""
_BODIES_AT_ONCE = 20
"""In memory, of which each may have the largest size."""
_LONGEST_REST_S = 0.5
COLUMNS = (
    "id", "source", "event_id", "type", "state", "received_at", "deliveries", "conflicts", "error",
)  # fmt: skip
BODY_COLUMNS = ("body", "body_missing")


class Form(enum.StrEnum):
    """How an export is written."""

    CSV = "csv"
    JSON_LINES = "jsonl"


MEDIA_TYPES = {Form.CSV: "text/csv", Form.JSON_LINES: "application/x-ndjson"}
Mask = Callable[[Sequence[ListedEvent]], Sequence[ListedEvent]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedExport:
    """What is to be exported, and how."""

    query: str
    """The search as it was typed, for the audit log."""
    selection: EventFilter
    form: Form
    oldest_first: bool
    with_bodies: bool


class Export:
    """The pieces of an export, as bytes. To be closed, also when it is not read to its end."""

    def __init__(
        self,
        engine: Engine,
        wanted: WantedExport,
        *,
        by: Author,
        mask: Mask = tuple,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Record that it begins. `mask` hides what `by` may not see; `sleep` waits seconds."""
        self.wanted = wanted
        self.rows = 0
        """How many were written so far."""
        self._engine, self._mask, self._sleep = engine, mask, sleep
        self._is_whole = self._is_closed = False
        self._when_closed: Callable[[], object] = lambda: None
        with engine.begin() as connection:
            self._number = exports.begin(
                connection, by=by, query=wanted.query, what=_described(wanted)
            )
        self._pieces = self._written()

    def __iter__(self) -> Iterator[bytes]:
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece, which may take some seconds; it is empty if nothing was found in
        them, so that who reads it can leave."""
        piece = next(self._pieces, None)
        if piece is None:
            self._is_whole = True
            raise StopIteration
        return piece

    def close(self) -> None:
        """Record how it ended: whole, or cut after so many rows."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._record_end()
        finally:
            self._when_closed()

    def when_closed(self, act: Callable[[], object]) -> None:
        """Say what is to be done once it is closed."""
        self._when_closed = act

    def _record_end(self) -> None:
        rows = f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}"
        ending = rows if self._is_whole else f"cut after {rows}"
        with self._engine.begin() as connection:
            exports.end(connection, self._number, what=f"{_described(self.wanted)}: {ending}")

    def _written(self) -> Iterator[bytes]:
        wanted = self.wanted
        columns = (*COLUMNS, *(BODY_COLUMNS if wanted.with_bodies else ()))
        if wanted.form is Form.CSV:
            yield "\N{BYTE ORDER MARK}".encode() + _csv([columns])
        for batch in self._batches():
            shown = self._mask(batch)
            if not shown:
                yield b""
            step = _BODIES_AT_ONCE if wanted.with_bodies else BATCH
            for begin in range(0, len(shown), step):
                part = shown[begin : begin + step]
                yield self._piece(part)
                self.rows += len(part)

    def _batches(self) -> Iterator[Sequence[ListedEvent]]:
        """Return batch after batch, each after a rest as long as PostgreSQL worked for the one
        before: half of the time is the webhooks'."""
        wanted, began = self.wanted, time.perf_counter()
        for batch in batches(
            self._engine,
            wanted.selection,
            sizes=(FIRST_BATCH, BATCH),
            oldest_first=wanted.oldest_first,
        ):
            took = time.perf_counter() - began
            yield batch
            self._sleep(min(took, _LONGEST_REST_S))
            began = time.perf_counter()

    def _piece(self, events: Sequence[ListedEvent]) -> bytes:
        found: Mapping[Any, ExportedBody] = {}
        if self.wanted.with_bodies:
            with self._engine.connect() as connection:
                found = bodies(connection, [event.id for event in events])
        if self.wanted.form is Form.CSV:
            return _csv([_cells(event, found.get(event.id)) for event in events])
        return b"".join(_line(event, found.get(event.id)) for event in events)


def _described(wanted: WantedExport) -> str:
    form = "CSV" if wanted.form is Form.CSV else "JSON lines"
    return f"{form} with bodies" if wanted.with_bodies else form


def _cells(event: ListedEvent, body: ExportedBody | None) -> list[object]:
    cells = [_plain(getattr(event, name)) for name in COLUMNS]
    if body is not None:
        text = None if body.body is None else body.body.decode("utf-8", errors="replace")
        cells += [text, body.missing]
    return [_no_formula(cell) if isinstance(cell, str) else cell for cell in cells]


def _no_formula(text: str) -> str:
    """Return a cell that a spreadsheet shows as it is; the apostrophe is not shown."""
    return f"'{text}" if text.startswith(_BEGINS_FORMULA) else text


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", errors="replace")


def _line(event: ListedEvent, body: ExportedBody | None) -> bytes:
    members = {name: _plain(getattr(event, name)) for name in COLUMNS}
    if body is None:
        return json.dumps(members, ensure_ascii=False).encode() + b"\n"
    members["body_missing"] = body.missing
    beginning = json.dumps(members, ensure_ascii=False).encode()[:-1]
    return beginning + b', "body": ' + _as_json(body.body) + b"}\n"


def _as_json(body: bytes | None) -> bytes:
    """Return a body as a JSON value on one line: itself if it is JSON, else its text."""
    if body is None:
        return b"null"
    try:
        strict_json.loads(body)
    except strict_json.InvalidJson:
        return json.dumps(body.decode("utf-8", errors="replace")).encode()
    # No text in JSON holds these unescaped.
    line = body.removeprefix(codecs.BOM_UTF8)
    return line.replace(b"\r", b" ").replace(b"\n", b" ")


def _plain(value: object) -> object:
    return value if isinstance(value, int | str) or value is None else _spelled(value)


def _spelled(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
