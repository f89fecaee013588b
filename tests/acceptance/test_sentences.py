"""A database that cannot be used is one sentence and exit code 1, never a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from ingest.cli import main
from tests.conftest import Servers
from tests.support.ports import free_port
from tests.support.servers import as_role
from tests.support.servers.setups import POOLED, POOLERS_ROLE
from tests.support.signing import SECRET

MIGRATE, STATS, EVENTS = ["migrate"], ["stats"], ["events", "list"]
REPLAY = ["replay", "--state", "dead", "--dry-run"]

Run = Callable[[str, list[str]], str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command that fails on the database that it is given; returns its sentence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", SECRET)
    monkeypatch.setenv("INGEST_REDIS_URL", "redis://127.0.0.1:1/0")

    def failing(url: str, command: list[str]) -> str:
        monkeypatch.setenv("INGEST_DATABASE_URL", url)
        monkeypatch.setattr(sys, "argv", ["ingest", *command])
        with pytest.raises(SystemExit) as ended:
            main.main()
        sentence = str(ended.value.code)
        assert sentence.startswith("ingest: ")
        assert "\n" not in sentence
        return sentence

    return failing


def test_no_command_runs_on_a_database_that_is_not_utf8(
    make_database: Callable[..., str], run: Run
) -> None:
    url = make_database(encoding="SQL_ASCII")
    for command in (MIGRATE, STATS, EVENTS, REPLAY):
        assert "The database must be UTF8; it is SQL_ASCII." in run(url, command)


def test_no_process_starts_on_a_database_that_is_not_utf8(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    environment = os.environ | {
        "INGEST_DATABASE_URL": make_database(encoding="LATIN1"),
        "INGEST_REDIS_URL": "redis://127.0.0.1:1/0",
        "INGEST_AWALCHAT_SECRETS": SECRET,
    }
    ports = ["--port", str(free_port()), "--console-port", str(free_port())]
    commands = (
        ["serve", "--port", str(free_port())],
        ["console", "--port", str(free_port())],
        ["worker"],
        ["relay"],
        ["up", "--data", "here", *ports],
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "ingest", *command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        for process in running:
            (line,) = process.communicate(timeout=120)[1].splitlines()
            assert process.returncode == 1
            assert "The database must be UTF8; it is LATIN1." in line
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://teller:hunter2@127.0.0.1:1/shop", "Nothing listens"),
        ("postgresql://teller:hunter2@db.invalid/shop", "the host name does not resolve"),
        ("postgresql://teller:hunter2@a..b/shop", "names a host that cannot be one"),
    ],
)
@pytest.mark.parametrize("command", [MIGRATE, STATS, REPLAY])
def test_a_command_says_what_is_wrong_with_the_way_to_the_database(
    run: Run, command: list[str], url: str, says: str
) -> None:
    sentence = run(url, command)
    assert says in sentence
    assert "teller" not in sentence
    assert "hunter2" not in sentence


@pytest.mark.not_on(*POOLED, reason=POOLERS_ROLE)
def test_a_command_says_what_the_server_refuses(
    servers: Servers, make_database: Callable[..., str], run: Run
) -> None:
    url = make_database()
    with servers.role() as role:
        assert "CREATE SCHEMA ingest AUTHORIZATION" in run(as_role(url, role), MIGRATE)
        assert "does not let the user in" in run(as_role(url, "no_such_role"), STATS)
        assert "is not migrated: run `ingest migrate`" in run(url, STATS)
        assert "does not exist" in run(servers.database_url("nowhere"), EVENTS)
        servers.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        sentence = run(as_role(url, role), STATS)
        assert "Too many connections" in sentence
        assert "is it running" not in sentence


def test_a_newer_schema_is_a_sentence_for_migrate(database_url: str, run: Run) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ingest.alembic_version SET version_num = '9999'")
    assert "The schema is newer (9999) than this code" in run(database_url, MIGRATE)


@pytest.mark.parametrize("host", ["db.invalid", "example..com"])
def test_send_says_that_a_host_name_does_not_resolve(run: Run, host: str) -> None:
    command = ["send", "order.created", "--url", f"http://{host}/webhooks/awalchat"]
    sentence = run("postgresql://u@127.0.0.1:1/d", command)
    assert sentence == f"ingest: The host name {host} does not resolve."


@pytest.mark.parametrize(
    "url", ["http://[::1/x", "http://h:99999/x", "http://a b/x", "ftp://h", "h"]
)
def test_send_says_that_an_address_is_none(run: Run, url: str) -> None:
    sentence = run("postgresql://u@127.0.0.1:1/d", ["send", "order.created", "--url", url])
    assert sentence == f"ingest: {url!r} is not a URL: write http://host:port/path."


FOREIGN = """
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('0001');
    CREATE TABLE orders (order_id bigint PRIMARY KEY, total numeric);
    INSERT INTO orders VALUES (7, 12.50);
    CREATE TABLE events (note text);
    INSERT INTO events VALUES ('mine');
    CREATE TABLE jobs (note text);
    INSERT INTO jobs VALUES ('mine too');
    CREATE INDEX ON events (note);
"""
_RELATIONS = """
    SELECT relname, c.oid, relfilenode, c.xmin::text, relkind FROM pg_class c
    WHERE relnamespace = 'public'::regnamespace ORDER BY relname
"""


def _content(url: str) -> list[object]:
    """All that lies in `public`, down to where each row is and which transaction wrote it."""
    with psycopg.connect(url) as connection:
        relations = connection.execute(_RELATIONS).fetchall()
        tables = [f"public.{name}" for name, *_, kind in relations if kind == "r"]
        return [
            *relations,
            *(
                connection.execute(f"SELECT ctid, xmin::text, * FROM {table}".encode()).fetchall()
                for table in tables
            ),
        ]


def test_an_applications_tables_and_its_alembic_version_stay_as_they_are(
    make_database: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = make_database()
    with psycopg.connect(url) as connection:
        connection.execute(FOREIGN)
    before = _content(url)
    monkeypatch.setenv("INGEST_DATABASE_URL", url)
    monkeypatch.setattr(sys, "argv", ["ingest", *MIGRATE])
    for said in ("Migrated from nothing to", "The schema is at"):
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert not ended.value.code
        assert said in capsys.readouterr().out
    assert _content(url) == before
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT to_regclass('ingest.events') IS NOT NULL").fetchone()
        assert found == (True,)


@pytest.mark.parametrize("concurrency", ["0", "-1"])
def test_no_processes_are_refused_as_a_setting_is(
    concurrency: str, database_url: str, tmp_path: Path
) -> None:
    done = _end(["worker", "--concurrency", concurrency], database_url, tmp_path)
    assert done.returncode == 1
    assert done.stderr == "ingest: INGEST_CONCURRENCY: must be greater than 0.\n"


@pytest.mark.parametrize(
    "command", ["serve", "worker", "relay", "console", "migrate", "stats", "top"]
)
def test_a_typo_in_a_variable_is_told_once_at_the_start(command: str, tmp_path: Path) -> None:
    """Of a process that does not start for another reason."""
    odd = {"INGEST_AWALCHAT_SECRT": "SENTINEL", "INGEST_HEARTBEAT_FILE": "/nowhere/beat"}
    odd |= {"INGEST_HOST": "ü..x", "INGEST_CONSOLE_HOST": "ü..x"}
    done = _end([command], "postgresql://u@127.0.0.1:1/d", tmp_path, **odd)
    assert done.returncode == 1
    assert done.stderr.count("INGEST_AWALCHAT_SECRT") == 1, done.stderr
    assert done.stderr.count("INGEST_AWALCHAT_SECRETS") == 1
    assert "SENTINEL" not in done.stderr
    assert "Traceback" not in done.stderr


def _end(
    command: list[str], url: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "ingest", *command],
        cwd=folder,
        env=os.environ
        | {
            "INGEST_DATABASE_URL": url,
            "INGEST_REDIS_URL": "redis://127.0.0.1:1/0",
            "INGEST_AWALCHAT_SECRETS": SECRET,
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("command", "variable", "value", "says"),
    [
        ("worker", "HEARTBEAT_FILE", "/nowhere/beat", "INGEST_HEARTBEAT_FILE: /nowhere/beat"),
        ("relay", "HEARTBEAT_FILE", "/nowhere/beat", "INGEST_HEARTBEAT_FILE: /nowhere/beat"),
        ("serve", "HOST", "ü..x", "it is not a host name"),
    ],
)
def test_a_file_or_a_host_that_cannot_be_used_is_a_sentence(
    command: str, variable: str, value: str, says: str, database_url: str, tmp_path: Path
) -> None:
    done = _end([command], database_url, tmp_path, **{f"INGEST_{variable}": value})
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
