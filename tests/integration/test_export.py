"""Exports: each event that a search means, once, in both forms; and what the audit log says."""

import codecs
import csv
import io
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from ingest import export
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role as UserRole
from ingest.encryption.keys import BodyKeys
from ingest.export import Export, Form, WantedExport
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.reports import audit_log
from ingest.store.search import events, scan
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from tests.support.deliver import body, deliver
from tests.support.rows import execute
from tests.support.states import listed, store

NOURA = Identity(name="noura", role=UserRole.OPERATOR, via="password")
WANTED = WantedExport(
    query="",
    selection=EventFilter(),
    form=Form.JSON_LINES,
    oldest_first=False,
    with_bodies=False,
)
KEYS = BodyKeys([bytes(range(32))])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FIRST_BATCH", 3)
    monkeypatch.setattr(export, "BATCH", 7)
    monkeypatch.setattr(export, "_BODIES_AT_ONCE", 2)


def exported(engine: Engine, wanted: WantedExport) -> bytes:
    with closing(Export(engine, wanted, by=NOURA, sleep=lambda _s: None)) as pieces:
        return b"".join(pieces)


def lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def cells(text: bytes) -> list[dict[str, str]]:
    assert text.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline="")))


def last(engine: Engine) -> audit_log.Action:
    with engine.connect() as connection:
        (action,) = audit_log.newest(connection, limit=1)
    return action


def test_an_export_is_the_list_in_both_orders_and_forms(engine: Engine, database_url: str) -> None:
    store(engine, database_url)
    for selection in (
        EventFilter(),
        EventFilter(state="dead"),
        EventFilter(types=("order.*",)),
        EventFilter(excluded=(EventFilter(search="urgent"),)),
        EventFilter(search="nothing like it"),
    ):
        expected = [str(event.id) for event in listed(engine, selection)]
        for oldest_first in (False, True):
            wanted = replace(WANTED, selection=selection, oldest_first=oldest_first)
            ids = expected[::-1] if oldest_first else expected
            assert [row["id"] for row in lines(exported(engine, wanted))] == ids
            as_csv = exported(engine, replace(wanted, form=Form.CSV))
            assert [row["id"] for row in cells(as_csv)] == ids
    first = lines(exported(engine, WANTED))[-1]
    assert tuple(first) == export.COLUMNS
    assert (first["event_id"], first["deliveries"], first["conflicts"]) == (
        "order.created:0",
        2,
        False,
    )


def test_the_audit_log_says_who_exported_what_and_how_far_it_got(
    engine: Engine, database_url: str
) -> None:
    store(engine, database_url)
    wanted = replace(WANTED, query="-type:x", form=Form.CSV, with_bodies=True)
    pieces = Export(engine, wanted, by=NOURA, sleep=lambda _s: None)
    assert last(engine).reason == "CSV with bodies: begun"
    list(pieces)
    pieces.close()
    pieces.close()
    action = last(engine)
    assert (action.by, action.action, action.target) == ("noura", "export", "-type:x")
    assert action.via == "password"
    assert action.reason == "CSV with bodies: 60 rows"
    cut = Export(engine, WANTED, by=NOURA, sleep=lambda _s: None)
    next(cut)
    next(cut)
    cut.close()
    action = last(engine)
    assert (action.by, action.target) == ("noura", "all events")
    assert action.reason == "JSON lines: cut after 3 rows"


def test_who_reads_what_is_rarely_found_can_leave(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store(engine, database_url)
    monkeypatch.setattr(scan, "FIRST_SLICE", 5)
    monkeypatch.setattr(events, "_BATCH_S", 0)
    wanted = replace(WANTED, selection=EventFilter(fields=(("data.order_id", "1"),)))
    with closing(Export(engine, wanted, by=NOURA, sleep=lambda _s: None)) as pieces:
        read = list(pieces)
    assert read.count(b"") > 5
    assert [row["id"] for row in lines(b"".join(read))] == [str(stored[1])]


def test_a_body_with_a_byte_order_mark_is_a_line_like_any_other(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [codecs.BOM_UTF8 + b'{"event":"a.b","data":{"n":1}}'])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    (row,) = lines(exported(engine, replace(WANTED, with_bodies=True)))
    assert row["body"] == {"event": "a.b", "data": {"n": 1}}


BODIES = [
    body("order.created", {"order_id": 1, "note": "سارة"}),
    b'{"event":"order.created",\n "data":{"order_id":2, "total": 1250.00}}\n',
    body("order.created", {"order_id": 3}),
    body("order.created", {"order_id": 4}),
]


def test_bodies_are_exported_as_they_came_or_with_why_they_are_missing(
    engine: Engine, database_url: str
) -> None:
    ids = deliver(database_url, BODIES[:2])
    ids += deliver(database_url, BODIES[2:3], keys=KEYS)
    ids += deliver(database_url, BODIES[3:])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(engine, "UPDATE deliveries SET body = NULL WHERE id = :id", id=ids[3])
    wanted = replace(WANTED, with_bodies=True)
    for keys, is_read in ((KEYS, True), (BodyKeys([]), False)):
        keyed = create_engine(replace(parse(database_url), body_keys=keys), role=Role.OPERATOR)
        text = exported(keyed, wanted)
        as_csv = cells(exported(keyed, replace(wanted, form=Form.CSV)))[::-1]
        keyed.dispose()
        rows = lines(text)[::-1]
        assert b'"total": 1250.00' in text
        assert [row["body"] for row in rows[:2]] == [json.loads(raw) for raw in BODIES[:2]]
        assert [row["body"] for row in as_csv[:2]] == [raw.decode() for raw in BODIES[:2]]
        for row in (rows[2], as_csv[2]):
            assert bool(row["body"]) is is_read
            assert ("has not been given" in (row["body_missing"] or "")) is not is_read
        assert (rows[3]["body"], as_csv[3]["body"]) == (None, "")
        assert rows[3]["body_missing"] == as_csv[3]["body_missing"]
        assert "erased" in rows[3]["body_missing"]


def test_no_cell_is_a_formula_and_what_is_masked_stays_hidden(
    engine: Engine, database_url: str
) -> None:
    deliver(database_url, [body(kind, {"order_id": n}) for n, kind in enumerate(FORMULAS)])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    kinds = [row["type"] for row in cells(exported(engine, replace(WANTED, form=Form.CSV)))]
    assert sorted(kinds) == sorted(f"'{kind}" for kind in FORMULAS)
    assert {row["type"] for row in lines(exported(engine, WANTED))} == set(FORMULAS)

    def mask(batch: Sequence[ListedEvent]) -> Sequence[ListedEvent]:
        return [replace(event, type="hidden") for event in batch]

    with closing(Export(engine, WANTED, by=NOURA, mask=mask, sleep=lambda _s: None)) as pieces:
        assert {row["type"] for row in lines(b"".join(pieces))} == {"hidden"}


FORMULAS = ("=1+1", "+1", "-1", "@sum", "\t=1", "\uff1d1")
