"""What the overview's page and `ingest stats` tell beside the counts: what is parked, what could
not be read, what a database role lacks."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine

from ingest.cli import main, output
from ingest.console import app
from ingest.store.engine import create_engine
from ingest.store.pipeline.metrics import describe_unreadable
from ingest.store.reports import heartbeats
from ingest.store.reports.heartbeats import ProcessIdentity
from tests.integration.conftest import Worker
from tests.integration.test_parking import AFTER_S, House
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.asgi import Browser
from tests.support.deliver import body, deliver
from tests.support.rows import execute
from tests.support.waiting import until

MakeSettings = Callable[..., Any]
Read = Callable[..., str]
UNREAD = "3 values could not be read in the last hour: orders.total 2, contacts.phone 1"


@pytest.fixture
def overview(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Returns the text of the page, as a reader sees it."""
    engines: list[Engine] = []

    def kept(*arguments: Any, **options: Any) -> Engine:
        engines.append(create_engine(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(app, "create_engine", kept)
    browser = Browser(app=app.create_app(make_settings()))

    def read(wanted: str = "hour", page: str = "/") -> str:
        answer = browser.get(f"{page}?range={wanted}")
        assert answer.status == 200, answer.text
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())

    yield read
    for engine in engines:
        engine.dispose()


@pytest.fixture
def stats(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Read:
    """Runs `ingest stats`; returns what it prints."""
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)

    def run(*options: str) -> str:
        capsys.readouterr()  # what was logged before
        monkeypatch.setattr(sys, "argv", ["ingest", "stats", *options])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert not ended.value.code
        return capsys.readouterr().out

    return run


@pytest.fixture
def unread(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker], declared: list[Any]
) -> None:
    """Three values that the read model could not read, and some of a day before."""
    declared.extend(BUILT_IN)
    bodies = [
        body("order.created", {"order_id": 1, "total": "much"}),
        body("order.created", {"order_id": 2, "total": "more"}),
        body("contact.updated", {"id": 1, "phone": 7.5}),
    ]
    make_worker().process(deliver(database_url, bodies))
    execute(
        engine,
        "INSERT INTO activity (minute, what, label, bucket, slot, count) VALUES"
        " (date_trunc('minute', now() - interval '20 h'), 'unreadable', 'orders.total', 0, 0, 5)",
    )


def park(engine: Engine, database_url: str) -> None:
    """Three jobs that no worker can take."""
    house = House(engine, database_url)
    house.make("removed", 3)
    house.worker("w", ["live"])
    house.clock.now += AFTER_S
    house.relay.sweep()


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    seen = io.StringIO()
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setattr(output, "console", lambda: Console(file=seen, width=200, highlight=False))
    return seen


@pytest.mark.usefixtures("unread")
def test_the_overview_tells_what_could_not_be_read_in_its_range(overview: Read) -> None:
    assert UNREAD in overview()
    told = "8 values could not be read in the last day: orders.total 7, contacts.phone 1"
    assert told in overview("day")


@pytest.mark.usefixtures("unread")
def test_stats_tell_what_could_not_be_read(stats: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(stats("--json"))["unreadable"] == {"orders.total": 2, "contacts.phone": 1}
    assert "unreadable\torders.total\t2\nunreadable\tcontacts.phone\t1\n" in stats()
    on_a_terminal(monkeypatch)
    assert UNREAD in stats()


def test_stats_tell_what_is_parked_and_since_when(
    engine: Engine, database_url: str, stats: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime.now(UTC)
    park(engine, database_url)
    counted = json.loads(stats("--json"))
    assert counted["jobs"]["pending"] == 3
    (lane,) = counted["parked"]
    since = datetime.fromisoformat(lane.pop("since"))
    assert lane == {"processor": "removed", "queue": "events", "reason": "unknown", "jobs": 3}
    assert abs((since - began).total_seconds()) < 3600
    told = f"parked\tremoved\t3\tevents\tunknown\t{since.isoformat(timespec='seconds')}\n"
    assert told in stats()
    seen = on_a_terminal(monkeypatch)
    stats()
    assert "no live worker has it" in seen.getvalue()


def test_where_all_is_well_there_is_nothing_more_to_tell(overview: Read, stats: Read) -> None:
    told = json.loads(stats("--json"))
    assert set(told) == {"deliveries", "events", "jobs", "backlog"}
    nothing = {"total": 0, "deliveries": 0, "jobs": 0, "is_least": False, "held": 0, "age_s": 0.0}
    assert told["backlog"] == nothing
    page = overview()
    assert "Nothing is behind all that was due is done or under way" in page
    assert "could not be read" not in page
    assert "Parked" not in page


def test_the_overview_tells_what_is_parked_and_why(
    engine: Engine, database_url: str, overview: Read
) -> None:
    park(engine, database_url)
    assert re.search(r"Parked .* removed events no live worker has it .* 3 ", overview())


def test_the_overview_tells_what_a_database_role_lacks(engine: Engine, overview: Read) -> None:
    identity = ProcessIdentity(id="r", kind="relay", host="h<b>", pid=7, version="1")
    lacks = ["lacks UPDATE on ingest.jobs", "does not own ingest.deliveries"]
    with engine.begin() as connection:
        heartbeats.upsert(connection, identity, lacks=lacks)
    told = "its database role lacks UPDATE on ingest.jobs; does not own ingest.deliveries"
    assert told in overview()


def test_what_may_be_lost_is_told_with_the_refused_requests(
    engine: Engine, overview: Read, stats: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "will not be sent again" not in overview() + overview(page="/failures")
    execute(
        engine,
        "INSERT INTO activity (minute, what, label, bucket, slot, count) VALUES"
        " (date_trunc('minute', now() - interval '20 h'), 'possible_loss', 'hub', 0, 0, 2)",
    )
    told = "2 deliveries from hub were answered 5xx and will not be sent again"
    until(lambda: told in overview(page="/failures"), what="the overview is read anew")
    assert "possible_loss\thub\t2\t" in stats()
    on_a_terminal(monkeypatch)
    assert told in stats()


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"a.b": 1}, "1 value could not be read lately: a.b 1"),
        (
            {f"a.{n}": 1_000 for n in range(8)},
            "8,000 values could not be read lately: "
            + ", ".join(f"a.{n} 1,000" for n in range(6))
            + ", 2 fields more",
        ),
    ],
)
def test_the_sentence_of_what_could_not_be_read(counts: dict[str, int], told: str) -> None:
    assert describe_unreadable(counts, "lately") == told
