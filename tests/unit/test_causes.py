"""Each cause has its slug and its sentence, from what libpq really says."""

import asyncio
import socket

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError

from ingest.errors import MigrationRefused, StorageUnavailable
from ingest.store.address import Database, parse
from ingest.store.causes import Cause, explain, privileges_missing
from ingest.store.engine import Role, UnfitDatabase, WriterConnection, create_engine
from tests.support.saying import saying

SAID = [
    ('password authentication failed for user "teller"', "28P01", "access_denied"),
    ('role "teller" does not exist', "28000", "access_denied"),
    ('role "teller" is not permitted to log in', "28000", "access_denied"),
    (
        'no pg_hba.conf entry for host "10.0.0.1", user "teller", database "shop", SSL off',
        "28000",
        "access_denied",
    ),
    ('database "shop" does not exist', "3D000", "no_such_database"),
    ("sorry, too many clients already", "53300", "too_many_connections"),
    (
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "53300",
        "too_many_connections",
    ),
    ('too many connections for role "teller"', "53300", "too_many_connections"),
    ('too many connections for database "shop"', "53300", "too_many_connections"),
    ("the database system is starting up", "57P03", "database_starting"),
    ("the database system is shutting down", "57P03", "database_stopping"),
    ("the database system is in recovery mode", "57P03", "database_recovering"),
    (
        "the database system is not yet accepting connections",
        "57P03",
        "database_recovering",
    ),
    (
        "terminating connection due to administrator command",
        "57P01",
        "database_stopping",
    ),
    ("no such database: shop", "08P01", "no_such_database"),
    ("no such user: teller", "08P01", "access_denied"),
    ("no more connections allowed (max_client_conn)", "08P01", "too_many_connections"),
    ("unsupported startup parameter: options", "08P01", "pooler_parameter"),
    ("unsupported startup parameter in options: search_path", "08P01", "pooler_parameter"),
    ("query_wait_timeout", "08P01", "pooler_without_server"),
    (
        "server login has been failing, cached error: connect failed",
        "08P01",
        "pooler_without_server",
    ),
    ("pgbouncer cannot connect to server", "08P01", "pooler_without_server"),
    ("Passwort ist falsch", "28P01", "login_refused"),
]


def causes_at(url: str) -> set[Cause]:
    """What both kinds of connections make of a server."""
    database = parse(url)
    engine = create_engine(database, role=Role.OPERATOR)
    with pytest.raises(SQLAlchemyError) as one:
        engine.connect()

    async def other() -> None:
        await WriterConnection.open(database)

    with pytest.raises(psycopg.OperationalError) as two:
        asyncio.run(other())
    return {explain(one.value, database), explain(two.value, database)}


@pytest.mark.parametrize(("message", "sqlstate", "reason"), SAID)
def test_what_a_server_says_at_the_login_has_its_cause(
    message: str, sqlstate: str, reason: str
) -> None:
    with saying(message, sqlstate) as port:
        (cause,) = causes_at(
            f"postgresql://teller:hunter2@127.0.0.1:{port}/shop?gssencmode=disable"
        )
    assert cause.reason == reason
    assert cause.sentence[0].isupper()
    assert cause.sentence[-1] in ".)"
    assert f"127.0.0.1:{port}" in cause.sentence
    for secret in ("teller", "hunter2", "10.0.0.1"):
        assert secret not in cause.sentence


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("sorry, too many clients already", "of the server"),
        ('too many connections for role "teller"', "of the role"),
        ('too many connections for database "shop"', "of the database"),
        ("no more connections allowed (max_client_conn)", "of the pooler"),
    ],
)
def test_a_limit_of_connections_is_called_by_its_name(message: str, limit: str) -> None:
    sentence = explain(psycopg.OperationalError(f"FATAL:  {message}")).sentence
    assert sentence.startswith("Too many connections: ")
    assert limit in sentence
    assert "running" not in sentence


def test_the_parameter_that_a_pooler_refuses_is_named() -> None:
    error = psycopg.OperationalError("FATAL:  unsupported startup parameter: extra_float_digits")
    assert "ignore_startup_parameters = extra_float_digits" in explain(error).sentence


def test_a_server_without_tls_is_told_from_one_that_is_away() -> None:
    with saying("never said", "XX000") as port:
        url = f"postgresql://u@127.0.0.1:{port}/d?sslmode=require&gssencmode=disable"
        assert {cause.reason for cause in causes_at(url)} == {"tls_failed"}
        url = f"postgresql://u@127.0.0.1:{port}/d?sslmode=verify-full&sslrootcert=/no/such/file"
        assert {cause.reason for cause in causes_at(url)} == {"tls_failed"}


def test_where_nothing_listens_that_is_said() -> None:
    (cause,) = causes_at("postgresql://u:hunter2@127.0.0.1:1/d")
    assert cause.reason == "connection_refused"
    assert cause.sentence.startswith(
        "Nothing listens at the address of the database d at 127.0.0.1:1"
    )
    (cause,) = causes_at("postgresql://u@/d?host=/no/such/folder")
    assert cause.reason == "connection_refused"


def test_a_host_name_that_does_not_resolve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    (cause,) = causes_at("postgresql://u@db.example/d")
    assert cause.reason == "host_not_found"
    assert "does not resolve" in cause.sentence
    libpq = psycopg.OperationalError('could not translate host name "db" to address: No such host')
    assert explain(libpq).reason == "host_not_found"


def test_of_several_hosts_the_one_that_answers_gives_the_cause() -> None:
    with saying("the database system is starting up", "57P03") as port:
        for hosts in (f"127.0.0.1:1,127.0.0.1:{port}", f"127.0.0.1:{port},127.0.0.1:1"):
            causes = causes_at(f"postgresql://u@{hosts}/d?gssencmode=disable")
            assert {cause.reason for cause in causes} == {"database_starting"}


def test_one_that_does_not_answer_in_time_is_said() -> None:
    for error in (
        psycopg.errors.ConnectionTimeout("connection timeout expired"),
        TimeoutError(),
        psycopg.OperationalError("connection to server failed: Connection timed out"),
    ):
        assert explain(error).reason == "database_timeout"


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (psycopg.errors.ReadOnlySqlTransaction(), "read_only", "default_transaction_read_only"),
        (psycopg.errors.UndefinedTable(), "not_migrated", "ingest migrate"),
        (psycopg.errors.InvalidSchemaName(), "not_migrated", "ingest migrate"),
        (psycopg.errors.DiskFull(), "disk_full", "no space"),
        (psycopg.errors.OutOfMemory(), "out_of_memory", "out of memory"),
        (psycopg.errors.LockNotAvailable(), "lock_not_available", "lock"),
        (psycopg.errors.DeadlockDetected(), "deadlock", "waited for each other"),
        (psycopg.errors.QueryCanceled(), "took_too_long", "too long"),
        (psycopg.errors.InvalidSqlStatementName(), "pooler_prepared", "max_prepared_statements"),
        (psycopg.errors.DuplicatePreparedStatement(), "pooler_prepared", "prepared statements"),
        (psycopg.errors.IdleSessionTimeout(), "connection_lost", "lost"),
        (psycopg.errors.AdminShutdown("terminating connection"), "database_stopping", "restarted"),
        (psycopg.errors.IoError(), "disk_fails", "disk"),
        (psycopg.OperationalError("the connection is closed"), "connection_lost", "lost"),
        (psycopg.OperationalError("server closed the connection"), "connection_lost", "lost"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection_lost", "lost"),
        (OSError(113, "No route to host"), "host_unreachable", "no way"),
        (psycopg.errors.UndefinedFunction(), "sqlstate_42883", "42883"),
        (ValueError("hunter2"), "internal", "ValueError"),
        (MigrationRefused("The schema is newer.", reason="schema_newer"), "schema_newer", "newer"),
        (UnfitDatabase("Must be UTF8.", reason="database_not_utf8"), "database_not_utf8", "UTF8"),
        (StorageUnavailable("Late.", reason="flush_timeout"), "flush_timeout", "Late."),
    ],
)  # fmt: skip
def test_what_a_statement_ends_with_has_its_cause(error: Exception, reason: str, says: str) -> None:
    cause = explain(error, parse("postgresql://u@h/shop"))
    assert cause.reason == reason
    assert says in cause.sentence


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("permission denied for table unadmitted", "lacks a privilege on the table unadmitted"),
        ("permission denied for schema ingest", "lacks a privilege on the schema ingest"),
        ("must be owner of table deliveries", "is not the owner of the table deliveries"),
        ("keine Berechtigung", "lacks a privilege"),
    ],
)
def test_a_privilege_that_is_missing_is_named_as_far_as_it_is_known(
    message: str, says: str
) -> None:
    cause = explain(psycopg.errors.InsufficientPrivilege(message))
    assert (cause.reason, cause.sentence) == (
        "privilege_missing",
        f"The database: the role {says}.",
    )


def test_privileges_that_were_asked_for_are_named() -> None:
    database = Database(parameters={"dbname": "shop", "host": "db"})
    cause = privileges_missing(["lacks INSERT on ingest.unadmitted", "lacks x"], database)
    assert cause.sentence == (
        "The database shop at db: the role lacks INSERT on ingest.unadmitted; lacks x."
    )
