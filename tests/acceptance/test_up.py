"""`ingest up`: everything with one command, and nothing left of it afterwards."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.harness import request
from tests.acceptance.up import Up
from tests.support.deliver import order
from tests.support.signing import signed_headers
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_the_documented_events_go_through_with_no_settings_at_all(
    make_up: Callable[..., Up],
) -> None:
    up = make_up().wait_until_ready()
    secret_file = up.folder / ".ingest" / "awalchat.secret"
    assert str(secret_file) in up.said
    assert secret_file.stat().st_mode & 0o077 == 0
    # Other senders make their secrets themselves.
    assert {path.name for path in secret_file.parent.glob("*.secret")} == {
        "awalchat.secret",
        "standard-webhooks.secret",
    }
    up.command("send", "--documented")
    until(lambda: up.stats()["jobs"]["succeeded"] == 6, what="all six are worked on")
    listed = up.command("events", "list", "--json").splitlines()
    assert len(listed) == 6
    assert "send invoice.paid --source standard-webhooks" in up.said
    up.command("send", "invoice.paid", "--source", "standard-webhooks")
    until(lambda: up.stats()["events"]["unhandled"] == 1)
    raw = order(5)
    secret = secret_file.read_text().strip()
    answer = request(up.port, "POST", "/webhooks/awalchat", raw, signed_headers(raw, secret=secret))
    assert answer.status == 200


def test_a_second_one_on_the_same_folder_is_refused_in_one_sentence(
    make_up: Callable[..., Up],
) -> None:
    first = make_up().wait_until_ready()
    second = make_up()
    assert second.process.wait(300) == 1
    (sentence,) = second.said.strip().splitlines()
    assert sentence == (
        f"ingest: `ingest up` already runs on {first.folder / '.ingest'}"
        f" (process {first.process.pid})."
    )
    assert first.stats()["events"]["total"] == 0


def test_the_console_is_part_of_it(make_up: Callable[..., Up]) -> None:
    up = make_up().wait_until_ready()
    assert f"http://127.0.0.1:{up.console_port}" in up.said
    page = request(up.console_port, "GET", "/")
    assert page.status == 200
    assert b"Nothing has arrived yet" in page.body
    sent = request(
        up.console_port,
        "POST",
        "/api/v1/test-event",
        b'{"type": "order.created"}',
        {"content-type": "application/json"},
    )
    assert sent.json["status"] == 200
    until(lambda: up.stats()["jobs"]["succeeded"] == 1)


def test_a_port_that_is_taken_is_said_before_anything_starts(make_up: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up = make_up("--port", str(taken.getsockname()[1]))
        assert up.process.wait(300) == 1
    (sentence,) = up.said.strip().splitlines()
    assert "Cannot listen on" in sentence
    assert "--port" in sentence
    assert not (up.folder / ".ingest" / "postgres").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_all_its_children_and_goes_on_where_it_was(
    make_up: Callable[..., Up], number: signal.Signals
) -> None:
    up = make_up().wait_until_ready()
    up.command("send", "--documented")
    until(lambda: up.stats()["jobs"]["succeeded"] == 6)
    assert up.end(number) == 0
    assert up.left() == set()
    assert "stopped" in up.said
    assert not (up.folder / ".ingest" / "up.json").exists()
    again = make_up().wait_until_ready()
    assert again.stats()["jobs"]["succeeded"] == 6


def test_a_signal_ends_it_before_it_is_ready_and_another_kills_no_server(
    make_up: Callable[..., Up], tmp_path: Path
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "slow.py").write_text("import time\ntime.sleep(3_600)\n")
    up = make_up(INGEST_PROCESSORS="slow")
    until(lambda: any("workers worker" in command for command in up.family().values()))
    for _ in range(2):
        up.process.send_signal(signal.SIGINT)
    assert up.process.wait(300) == 0
    assert up.left() == set()
    assert "stopping before it was ready" in up.said
    log = (up.folder / ".ingest" / "logs" / "postgres.log").read_text()
    assert "database system is shut down" in log


def test_the_port_of_another_postgres_in_the_shell_is_not_taken(
    make_up: Callable[..., Up],
) -> None:
    up = make_up(PGPORT="5433", PGDATABASE="shop", PGUSER="sara").wait_until_ready()
    assert up.stats()["events"]["total"] == 0


@pytest.mark.parametrize(
    "name", ["with a space", "ünïcödé", "x" * 120], ids=["space", "unicode", "long"]
)
def test_any_folder_will_do(make_up: Callable[..., Up], tmp_path: Path, name: str) -> None:
    up = make_up(folder=tmp_path / name).wait_until_ready()
    up.command("send", "--documented")
    until(lambda: up.stats()["jobs"]["succeeded"] == 6)


def test_a_database_of_ones_own_takes_the_place_of_the_embedded_one(
    make_up: Callable[..., Up], database_url: str
) -> None:
    up = make_up(INGEST_DATABASE_URL=database_url).wait_until_ready()
    assert not any("bin/postgres" in command for command in up.family().values())
    up.command("send", "--documented")
    until(lambda: up.stats()["jobs"]["succeeded"] == 6)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)


def test_processors_that_cannot_be_imported_are_said_at_once(make_up: Callable[..., Up]) -> None:
    up = make_up(INGEST_PROCESSORS="no_such_module")
    assert up.process.wait(300) == 1
    assert "no_such_module cannot be imported" in up.said
    assert not up.left()


def test_a_command_without_an_up_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "stats"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "ingest: No database: set INGEST_DATABASE_URL, or run `ingest up` in this folder."
    )


def test_it_is_ready_within_seconds(make_up: Callable[..., Up]) -> None:
    make_up().wait_until_ready().end()
    began = time.monotonic()
    make_up().wait_until_ready()
    assert time.monotonic() - began < 60  # 2 s on a quiet machine
