"""`ingest top`: what it shows of a pipeline, within 80 columns."""

import io
import sys
from collections.abc import Callable

import pytest
from rich.console import Console
from sqlalchemy import Engine

from ingest.cli import main, output, top
from ingest.store.pipeline import processors
from tests.integration.conftest import Worker
from tests.integration.test_behind import REGISTERED, received, sample
from tests.support.deliver import deliver, order
from tests.support.rows import execute
from workers import Event, processor


def shown(engine: Engine, *, height: int = 24) -> list[str]:
    """The lines of a screen of 80 columns."""
    screen = io.StringIO()
    with engine.connect() as connection:
        frame = top.frame(top.read(connection), height=height)
    Console(file=screen, width=80).print(frame)
    return screen.getvalue().splitlines()


def test_it_shows_what_is_behind_the_processors_and_what_fails(
    engine: Engine, database_url: str, make_worker: Callable[..., Worker]
) -> None:
    @processor("order.created", name="a.processor.of.orders.whose.name.is.long", max_attempts=1)
    def work(event: Event, db: object) -> None:
        if event.data["order_id"] == 1:
            raise ConnectionError("966512345678 does not answer")

    make_worker().process(deliver(database_url, [order(n) for n in range(4)]))
    with engine.begin() as connection:
        processors.register(connection, [REGISTERED])
        processors.pause(connection, "orders", by="amal", reason=None)
    deliver(database_url, [order(n) for n in range(10, 17)], now=received(200))
    sample(engine, ago_s=40, jobs=7, age_s=160)
    lines = shown(engine)
    assert max(map(len, lines)) <= 80
    text = "\n".join(line.rstrip() for line in lines)
    assert text.startswith("7 behind (7 deliveries to admit, 0 jobs due), 3 min")
    assert "; neither grows nor shrinks." in text.replace("\n", " ")
    assert "1 failed, 0 refused" in text
    assert "orders (paused)" in text
    assert "a.processor.of.orders.whose.n…" in text
    assert "ConnectionError" in text
    assert "966512345678" not in text


def test_what_has_no_room_is_counted(engine: Engine) -> None:
    execute(
        engine,
        "INSERT INTO processors (name, types, queue, batch, threads, max_attempts, timeout_s,"
        " registered_at) SELECT 'p' || n, '[]', 'events', false, 1, 1, 1, now()"
        " FROM generate_series(1, 40) AS n",
    )
    lines = shown(engine)
    assert len(lines) <= 24
    assert any(line.startswith("and 28 more") for line in lines)
    assert len(shown(engine, height=1_000)) > 40


def test_without_a_terminal_it_looks_once_or_says_what_to_do(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)
    monkeypatch.setattr(output, "is_terminal", lambda: False)
    monkeypatch.setattr(sys, "argv", ["ingest", "top"])
    with pytest.raises(SystemExit, match="use --once, or `ingest stats`"):
        main.main()
    monkeypatch.setattr(sys, "argv", ["ingest", "top", "--once"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("Nothing is behind.\nlast 5 min: 0/min accepted")
