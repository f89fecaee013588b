"""What was refused under stricter rules becomes events when it is opened again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.integration.conftest import Worker
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.signing import SECRET
from tests.support.waiting import until
from workers import processors, registry

BUILT_IN = [
    each for each in registry.declared if each.function.__module__.startswith(processors.__name__)
]
PLUGIN = Path(__file__).parents[1] / "plugin"
MARKED = b"\xef\xbb\xbf" + order(1, total="449.97000000000003")
FROM_PHP = b'{"event":"ticket.closed","timestamp":"2024-01-20T10:30:00Z","data":[]}'
STILL_NONE = b'{"event":"order.created","data":null}'


def rejected(engine: Engine, database_url: str, bodies: list[bytes]) -> list[UUID]:
    """Deliveries that a release before has rejected."""
    ids = deliver(database_url, [order(number) for number in range(len(bodies))])
    execute(engine, "DELETE FROM unadmitted")
    for delivery, raw in zip(ids, bodies, strict=True):
        execute(
            engine,
            "UPDATE deliveries SET rejected = 'body_not_json', body = :raw WHERE id = :id",
            raw=raw,
            id=delivery,
        )
    return ids


def ingest(database_url: str, *arguments: str) -> Any:
    """Run a command; what it prints, read as JSON."""
    environment = {"INGEST_DATABASE_URL": database_url, "INGEST_AWALCHAT_SECRETS": SECRET}
    done = subprocess.run(
        [sys.executable, "-m", "ingest", *arguments, "--json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_all_that_was_rejected_is_opened_again(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker], declared: list[Any]
) -> None:
    ids = rejected(engine, database_url, [MARKED, STILL_NONE, FROM_PHP])
    assert ingest(database_url, "deliveries", "replay") == {"rejected": 3, "opened": 2}
    assert ingest(database_url, "deliveries", "replay") == {"rejected": 1, "opened": 0}
    declared.extend(BUILT_IN)
    make_worker().process(ids)
    events = rows(engine, "SELECT id, event_id FROM events ORDER BY id")
    assert [row["id"] for row in events] == [ids[0], ids[2]]
    assert events[0]["event_id"] == "order.created:1"
    assert str(one(engine, "SELECT total FROM orders")) == "449.97000000000003"


def test_a_replay_of_what_was_rejected_waits_for_its_jobs(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker], declared: list[Any]
) -> None:
    ids = rejected(engine, database_url, [MARKED, STILL_NONE])
    declared.extend(BUILT_IN)
    worker = make_worker()
    with ThreadPoolExecutor(1) as pool:
        replayed = pool.submit(ingest, database_url, "deliveries", "replay", "--wait")
        until(lambda: one(engine, "SELECT count(*) FROM unadmitted"), what="one is opened")
        assert not replayed.done()
        worker.process(ids)
        outcome = {"unadmitted": 0, "unfinished": 0, "succeeded": 1, "dead": 0}
        assert replayed.result(300) == {"rejected": 2, "opened": 1, "outcome": outcome}


def test_one_that_was_rejected_is_opened_again_by_its_id(engine: Engine, database_url: str) -> None:
    marked, none = rejected(engine, database_url, [MARKED, STILL_NONE])
    assert ingest(database_url, "replay", str(marked))["deliveries"] == 1
    assert ingest(database_url, "replay", str(none))["deliveries"] == 0
    assert one(engine, "SELECT delivery FROM unadmitted") == marked


def test_a_delivery_that_holds_several_events_by_now_gets_its_elements(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = b'{"entries": [{"kind": "entry.posted", "number": 1}, 2, {"kind": "x", "number": 3}]}'
    (delivery,) = rejected(engine, database_url, [batch])
    execute(engine, "UPDATE deliveries SET source = 'ledger'")
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    assert ingest(database_url, "replay", str(delivery))["deliveries"] == 1
    elements = rows(engine, "SELECT id, rejected FROM deliveries WHERE part_of IS NOT NULL")
    assert {row["id"].int - delivery.int: row["rejected"] for row in elements} == {
        1: None,
        2: "kind_missing",
        3: None,
    }
    assert one(engine, "SELECT rejected FROM deliveries WHERE id = :id", id=delivery) is None
    unadmitted = rows(engine, "SELECT event_id FROM unadmitted ORDER BY delivery")
    assert [row["event_id"] for row in unadmitted] == ["entry.posted:1", "x:3"]
    assert ingest(database_url, "deliveries", "replay") == {"rejected": 1, "opened": 0}


def test_what_came_from_a_sender_that_is_no_longer_there_stays(
    engine: Engine, database_url: str
) -> None:
    rejected(engine, database_url, [MARKED])
    execute(engine, "UPDATE deliveries SET source = 'gone'")
    assert ingest(database_url, "deliveries", "replay") == {"rejected": 1, "opened": 0}
