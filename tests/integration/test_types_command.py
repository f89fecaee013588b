"""`ingest types` writes models of what was received, and of what senders document."""

from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from ingest.cli import main
from ingest.cli.database import CommandError
from tests.support.states import store


@pytest.fixture(autouse=True)
def _the_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)


def run(*arguments: str) -> str:
    ended = CliRunner().invoke(main.program(), ["types", *arguments])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return ended.stdout


def test_events_become_dataclasses_without_their_values(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    store(engine, database_url)
    text = run()
    assert [name for name in ("OrderCreated", "OrderLost", "ContactMade") if name in text] == [
        "OrderCreated",
        "OrderLost",
        "ContactMade",
    ]
    assert "    order_id: int\n    note: str\n" in text
    assert "urgent" not in text
    some = run("order.*", "--limit", "10", "--output", str(tmp_path / "models.py"))
    assert some == ""
    assert "ContactMade" not in (tmp_path / "models.py").read_text()


def test_samples_do_as_well() -> None:
    text = run("--from-samples", "order.created", "--source", "awalchat")
    assert "class OrderCreated:" in text
    assert "    total: " in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["order.created"], "No event of such a type has data that can be read."),
        (["--from-samples", "no.such"], "There is no sample that has data that can be read."),
        (["--source", "nobody"], "There is no source nobody; there is awalchat"),
        (["--from-samples", "--output", "/proc/none"], "/proc/none cannot be written"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(arguments: list[str], sentence: str) -> None:
    ended = CliRunner().invoke(main.program(), ["types", *arguments])
    assert isinstance(ended.exception, CommandError)
    assert sentence in str(ended.exception)


def test_events_without_bodies_are_left_out(engine: Engine, database_url: str) -> None:
    store(engine, database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ingest.deliveries SET body = NULL")
    ended = CliRunner().invoke(main.program(), ["types"])
    assert isinstance(ended.exception, CommandError)
