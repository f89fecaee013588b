"""The servers that tests run on, and how tests reach them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import redis

from ingest.local import process
from ingest.local.process import Program
from tests.support.redis_client import connect

PATIENT = "&connect_timeout=60"
"""Behind an address with parameters. By default, who connects waits 2 s: on a loaded machine, too
little for a server that is well."""
_PASSWORD = "of-a-role"


@dataclass(frozen=True, kw_only=True)
class Servers:
    """A running PostgreSQL and a running Redis."""

    administrator: str
    """The address of a superuser, with `{}` for the database's name; past any pooler."""
    application: str
    """The address that the pipeline is given, with `{}` for the database's name."""
    redis_url: str
    binaries: Path
    """The folder with the server's own `psql` and `pg_dump`."""
    owner: str
    """The role that owns the databases of tests."""
    check: Callable[[psycopg.Connection, redis.Redis], None] | None = None
    """Raise if another application's tables or keys have changed; None: there is none."""
    fill: Callable[[redis.Redis], None] = field(default=lambda _: None)
    """Put another application's keys into Redis."""
    tables: str = "SELECT"
    """Makes another application's tables in a database that is to be cloned."""

    def database_url(self, name: str) -> str:
        """Return the address of a database, as the pipeline is given it."""
        return self.application.format(name)

    def direct_url(self, name: str) -> str:
        """Return the administrator's address of a database."""
        return self.administrator.format(name)

    def as_administrator(self, url: str) -> str:
        """Return the administrator's address of the database that another address leads to."""
        return self.direct_url(database_of(url))

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run a statement of the administrator's."""
        with psycopg.connect(self.direct_url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(
        self, prefix: str, *, template: str = "template1", encoding: str | None = None
    ) -> Iterator[str]:
        """Return the name of a new database, dropped at the end; its encoding is the template's."""
        name = f"{prefix}_{uuid4().hex}"
        of_its_own = ""
        if encoding is not None:
            template = "template0"
            of_its_own = f"ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C'"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {self.owner} {of_its_own}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def role(self, options: str = "", *, used_in: str | None = None) -> Iterator[str]:
        """Return the name of a new role that may log in, dropped at the end.

        Args:
            options: further ones of `CREATE ROLE`.
            used_in: the address of a database; what the role may do or owns there goes with it.
        """
        name = f"role_{uuid4().hex}"
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{_PASSWORD}' {options}")
        try:
            yield name
        finally:
            self.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                f" WHERE usename = '{name}'"
            )
            if used_in is not None:
                self.execute(f"DROP OWNED BY {name}", database=database_of(used_in))
            self.execute(f"DROP ROLE {name}")

    def empty_redis(self) -> None:
        """Leave nothing in Redis but what another application has there."""
        with connect(self.redis_url) as client:
            client.flushall()
            self.fill(client)

    def check_neighbour(self, name: str) -> None:
        """Raise if another application's tables in a database, or its keys, have changed."""
        if self.check is None:
            return
        with psycopg.connect(self.direct_url(name)) as database, connect(self.redis_url) as client:
            self.check(database, client)


def database_of(url: str) -> str:
    """Return the name of the database that an address leads to."""
    return urlsplit(url).path[1:]


def as_role(url: str, role: str) -> str:
    """Return the address of a database with another role in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{_PASSWORD}@{host}"))


class Running:
    """A program, from entering to leaving."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process = process.spawn(program)

    def __enter__(self) -> None:
        process.wait_until_ready(self._program, self._process, timeout_s=300)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        process.stop(self._program, self._process)
