"""Connections and their settings, which depend on no role, database or pooler.

A pooler drops start-up options, and in transaction mode it gives every transaction another server
connection. So behind a pooler, the settings that a promise rests on are sent with BEGIN, in the
same message, for that transaction only, and no statement is prepared. On a direct connection they
are set once.
"""

import enum
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Self

import psycopg
import sqlalchemy
from psycopg import AsyncConnection, generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from sqlalchemy import Engine, PoolProxiedConnection, QueuePool, event

from ingest.encryption.keys import NO_KEYS
from ingest.store.address import Database
from ingest.store.sql import OWN, SCHEMA, in_schema

CONNECT_TIMEOUT_S = 2
# A machine that vanishes closes no connection: by Linux's defaults a process would wait 15 minutes
# for an answer to what it sent, and two hours for an answer that is due.
_TCP = {
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",  # milliseconds
}
OLDEST_SERVER = 15
"""The oldest PostgreSQL that the tests run on."""

BODY_KEYS = "ingest_body_keys"
"""The execution option that holds the keys of stored bodies (ingest.store.encryption)."""

_TRANSACTION_TIMEOUT_SINCE = 17


class Role(enum.Enum):
    """What a connection is for."""

    RECEIVER = "receiver"
    WORKER = "worker"
    PROCESSOR = "processor"
    RELAY = "relay"
    OPERATOR = "operator"
    MIGRATION = "migration"


class UnfitDatabase(psycopg.OperationalError):
    """The server answers, but the promises cannot be kept on it."""

    def __init__(self, message: str, *, reason: str) -> None:
        """`message` is a sentence, `reason` a slug."""
        super().__init__(message)
        self.reason = reason


# The formats that psycopg's adapters and our statements rely on.
_SPELLING = {
    # Sent at the login too, but behind a pooler RESET ALL goes back to the role's.
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
}
_COMMON = _SPELLING | {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
# The search path of our own connections excludes the application's tables; a processor's `db` keeps
# the path of its role. Estimates for a batch can be far too high, and then compiling a statement
# (jit) would cost more than running it.
_OURS = _COMMON | {"search_path": "pg_catalog", "TimeZone": "UTC", "jit": "off"}
# The statements of workers and of the relay read everything by an index, in its order. For a table
# that it believes to be small, the planner would choose a sequential scan, and a prepared statement
# would keep it while the table grows. A bitmap scan reads all due rows where a thousand are asked
# for. It also never marks the index's dead entries, so the next reader passes them again.
_BY_INDEX = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
# Set before a statement of ours that runs in a processor's transaction, after its own statements.
FOR_OURS = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"
# PostgreSQL's own time-outs are all off by default. After a client is killed, the server runs its
# statement on, and keeps its locks, until `client_connection_check_interval` notices.
_SETTINGS: Mapping[Role, Mapping[str, str]] = MappingProxyType(
    {
        # A role that hides warnings would hide that a commit was not replicated.
        Role.RECEIVER: _OURS | {"lock_timeout": "1s", "client_min_messages": "warning"},
        Role.WORKER: _OURS
        | _BY_INDEX
        | {
            "lock_timeout": "10s",
            "client_connection_check_interval": "1s",
            "idle_in_transaction_session_timeout": "5s",
        },
        # A worker that freezes during one of its own statements must not block the others. How long
        # a processor waits between its statements is not limited.
        Role.PROCESSOR: _COMMON | {"lock_timeout": "10s", "client_connection_check_interval": "1s"},
        Role.RELAY: _OURS | _BY_INDEX | {"statement_timeout": "10s", "lock_timeout": "2s"},
        Role.OPERATOR: _OURS | {"statement_timeout": "30s", "lock_timeout": "2s"},
        Role.MIGRATION: _OURS
        | {
            "statement_timeout": "1min",
            "lock_timeout": "4s",
            "client_connection_check_interval": "1s",
        },
    }
)
# A role may turn it off, and then an answer of 200 would not wait for the disk. A reload of the
# configuration changes it on open connections, so it is set each time.
_DURABLE = """CASE pg_catalog.current_setting('synchronous_commit')
    WHEN 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END"""


def settings_of(role: Role, connection: PGconn) -> dict[str, str]:
    """Return the settings of a role, names and values as PostgreSQL spells them."""
    settings = dict(_SETTINGS[role])
    if connection.server_version >= _TRANSACTION_TIMEOUT_SINCE * 10_000:
        settings["transaction_timeout"] = "0"
    return settings


def select_settings(names: Iterable[str]) -> str:
    """Return the statement that selects the id of the server process and its settings."""
    columns = "".join(f", pg_catalog.current_setting('{name}')" for name in names)
    return f"SELECT pg_catalog.pg_backend_pid(){columns}"


def set_configs(settings: Mapping[str, str], *, is_local: bool) -> str:
    """Return the expressions that set `settings`, for the transaction or for the session."""
    scope = "true" if is_local else "false"
    values = {name: f"'{value}'" for name, value in settings.items()}
    return ", ".join(
        f"pg_catalog.set_config('{name}', {value}, {scope})"
        for name, value in {"synchronous_commit": _DURABLE, **values}.items()
    )


BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED"


def changed(settings: Mapping[str, str], before: Sequence[Any]) -> dict[str, str]:
    """Return the settings that differ from those that a connection had, as `select_settings` has
    told them."""
    had = dict(zip(settings, before[1:], strict=True))
    return {name: value for name, value in settings.items() if had[name] != value}


def send(connection: PGconn, statements: bytes) -> PQGen[None]:
    """Send statements without parameters in one message.

    Raises:
        psycopg.Error: one of them failed; those behind it did not run.
    """
    connection.send_query(statements)
    for result in (yield from generators.execute(connection)):
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")


class PipelineConnection(psycopg.Connection[Any]):
    """psycopg's connection; each of its transactions has the settings of its role.

    BEGIN names the isolation too. A database may default to a stricter one, under which renewing a
    lease would conflict with the job's own transaction.
    """

    begin_statement = b"BEGIN"
    settings = ""
    """The expressions that set, for a transaction, what is not set for the session."""
    is_direct = False
    """Whether no pooler is in between, so that settings of the session stay."""

    def _start_query(self) -> PQGen[None]:
        """Begin a transaction and make its settings, in one message.

        psycopg's own method sends BEGIN alone. It is internal to psycopg, which is pinned for that.
        """
        if not self.autocommit and self.pgconn.transaction_status == TransactionStatus.IDLE:
            yield from send(self.pgconn, self.begin_statement)

    @classmethod
    def open(cls, database: Database, role: Role, **options: Any) -> Self:
        """Connect.

        Raises:
            psycopg.OperationalError: there is no server, or it takes none.
            UnfitDatabase: the server or the database is of a kind that is not supported.
        """
        connection = cls.connect(**parameters(database, role), **options, autocommit=True)
        try:
            check_server(connection.pgconn)
            settings = settings_of(role, connection.pgconn)
            row = connection.execute(select_settings(settings)).fetchone() or ()
            connection.is_direct = is_direct(connection.pgconn, row)
            if connection.is_direct:
                connection.execute(f"SELECT {set_configs(settings, is_local=False)}")
                settings = changed(settings, row)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        connection.settings = set_configs(settings, is_local=True)
        connection.begin_statement = BEGIN
        if not connection.is_direct:
            connection.prepare_threshold = None
            connection.begin_statement += f"; SELECT {connection.settings}".encode()
        return connection


class WriterConnection(AsyncConnection[Any]):
    """The writer's connection: every statement is a transaction with its own settings."""

    schema = SCHEMA
    body_keys = NO_KEYS
    settings: str | None = None
    """The statement that makes the settings of each transaction; None: the session has them."""
    _is_replicated = True
    """Whether the last commit waited for the standbys that it is to wait for."""

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Connect.

        Raises:
            psycopg.OperationalError: there is no server, or it takes none.
            UnfitDatabase: the server or the database is of a kind that is not supported.
        """
        role = Role.RECEIVER
        connection = await cls.connect(**parameters(database, role), autocommit=True)
        try:
            check_server(connection.pgconn)
            settings = settings_of(role, connection.pgconn)
            row = await (await connection.execute(select_settings(settings))).fetchone()
            if is_direct(connection.pgconn, row or ()):
                await connection.execute(f"SELECT {set_configs(settings, is_local=False)}")
            else:
                connection.prepare_threshold = None
                connection.settings = f"SELECT {set_configs(settings, is_local=True)}"
        except BaseException:
            await connection.close()
            raise
        connection.schema = database.schema
        connection.body_keys = database.body_keys
        connection.add_notice_handler(connection.read_notice)
        return connection

    async def commit_durably(
        self, ctes: str, values: Sequence[Any], *, is_repeat: bool = False
    ) -> None:
        """Run data-modifying CTEs, and return once their rows are on disk, and on that of the
        standby if there is a synchronous one.

        The statement that writes also reads the settings that durability depends on, so that no
        pooler, reload or failover can come between.

        Args:
            ctes: they insert rows.
            values: their parameters.
            is_repeat: the rows may be there already, from a commit in doubt. A transaction that
                changes nothing waits for no standby, so this one is made to write something.

        Raises:
            psycopg.Error: nothing was written, or it is unknown whether.
            UnfitDatabase: it was written, but not to disk, or not to that of the standby.
        """
        ask = _ASK_DURABILITY + (_WRITE_SOMETHING if is_repeat else "")
        sql = in_schema(ctes + ask, self.schema)
        self._is_replicated = True
        if self.settings is None:
            cursor = await self.execute(sql, values, prepare=True)
        else:
            async with self.pipeline():
                await self.execute(self.settings, prepare=False)
                cursor = await self.execute(sql, values, prepare=False)
        _check_durability(await cursor.fetchone())
        if not self._is_replicated:
            raise UnfitDatabase(
                "A commit is on the primary's disk only: its wait for the standby was cancelled.",
                reason="not_replicated",
            )

    def read_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Note the warning with which a commit succeeds whose wait was cancelled. The name of the
        server's function is the same in every language."""
        if notice.source_function == "SyncRepWaitForLSN":
            self._is_replicated = False

    async def try_out(self, ctes: str, values: Sequence[Any]) -> None:
        """Run data-modifying CTEs as `commit_durably` does, and roll them back.

        Raises:
            psycopg.Error: they failed; the caller closes the connection.
            UnfitDatabase: a commit would not be written to disk.
        """
        sql = in_schema(ctes + _ASK_DURABILITY, self.schema)
        async with self.pipeline(), self.transaction(force_rollback=True):
            if self.settings is not None:
                await self.execute(self.settings, prepare=False)
            cursor = await self.execute(sql, values, prepare=False)
        _check_durability(await cursor.fetchone())


_ASK_DURABILITY = """
SELECT pg_catalog.current_setting('fsync'), pg_catalog.current_setting('synchronous_commit')
"""
_WRITE_SOMETHING = ", pg_catalog.pg_logical_emit_message(true, 'ingest', CAST('' AS text))"


def _check_durability(row: Sequence[str] | None) -> None:
    fsync, synchronous_commit, *_ = row or ("unknown", "unknown")
    for name, value in (("fsync", fsync), ("synchronous_commit", synchronous_commit)):
        if value in ("off", "unknown"):
            raise UnfitDatabase(
                f"The server does not write commits to disk: {name} is {value}.",
                reason=f"{name}_off",
            )


def create_engine(
    database: Database,
    *,
    role: Role,
    pool_size: int = 1,
    connection_class: type[PipelineConnection] = PipelineConnection,
    on_wait: Callable[[float], None] | None = None,
    **options: Any,
) -> Engine:
    """Return an engine on psycopg with at most `pool_size` connections; it never logs a parameter.

    `options` are psycopg's, for `connection_class`. `on_wait` gets the seconds that somebody waited
    for a connection, each time, from any thread.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=partial(connection_class.open, database, role, **options),
        poolclass=_pool_class(on_wait),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        execution_options={BODY_KEYS: database.body_keys},
    )
    if database.schema != SCHEMA:
        rename_schema(engine, database.schema)
    return engine


def _pool_class(on_wait: Callable[[float], None] | None) -> type[QueuePool]:
    """Return a class of pools that tell `on_wait`."""
    if on_wait is None:
        return QueuePool
    tell = on_wait

    class TimedPool(QueuePool):
        def connect(self) -> PoolProxiedConnection:
            began = time.perf_counter()
            try:
                return super().connect()
            finally:
                tell(time.perf_counter() - began)

    return TimedPool


def rename_schema(engine: Engine, schema: str) -> None:
    """Make statements of our own use the tables in `schema`."""

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def rename(
        _connection: Any, _cursor: Any, sql: str, values: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        if context is not None and context.execution_options.get(OWN):
            sql = in_schema(sql, schema)
        return sql, values


def parameters(database: Database, role: Role) -> dict[str, Any]:
    """Return libpq's parameters for a connection of a role; those of the address win."""
    defaults = {
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "fallback_application_name": f"ingest-{role.value}",
        **_TCP,
    }
    if "," in database.parameters.get("host", ""):
        defaults["target_session_attrs"] = "read-write"
    return {**defaults, **database.parameters, "client_encoding": "UTF8"}


def check_server(connection: PGconn) -> None:
    """Refuse a server on which the pipeline does not work.

    Raises:
        UnfitDatabase: it is too old, or the database's encoding is not UTF8.
    """
    major = connection.server_version // 10_000
    if major < OLDEST_SERVER:
        raise UnfitDatabase(
            f"The server must be PostgreSQL {OLDEST_SERVER} or newer; it is {major}.",
            reason="server_too_old",
        )
    encoding = (connection.parameter_status(b"server_encoding") or b"").decode()
    if encoding != "UTF8":
        raise UnfitDatabase(
            f"The database must be UTF8; it is {encoding}. (createdb --encoding=UTF8"
            " --template=template0 makes one.)",
            reason="database_not_utf8",
        )


def is_direct(connection: PGconn, answer: Sequence[Any]) -> bool:
    """Return whether a connection reaches the server itself rather than a pooler.

    At the login a pooler does not know which server connection its client will get, so it makes up
    a process id.

    Args:
        connection: freshly opened.
        answer: a row that begins with the process id that the server reports.
    """
    return bool(answer) and connection.backend_pid == answer[0]
