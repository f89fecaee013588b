"""The servers that tests run on, and how tests reach them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psycopg
import redis

from ingest.embedded import process
from ingest.embedded.process import Program
from tests.support.redis_client import connect


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
    check: Callable[[psycopg.Connection, redis.Redis], None] = field(default=lambda *_: None)
    """Raise if another application's tables or keys have changed."""
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

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run a statement of the administrator's."""
        with psycopg.connect(self.direct_url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self, prefix: str, *, template: str = "template1") -> Iterator[str]:
        """Return the name of a new database, dropped at the end."""
        name = f"{prefix}_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {self.owner}")
        yield name
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def empty_redis(self) -> None:
        """Leave nothing in Redis but what another application has there."""
        with connect(self.redis_url) as client:
            client.flushall()
            self.fill(client)

    def check_neighbour(self, name: str) -> None:
        """Raise if another application's tables in a database, or its keys, have changed."""
        with psycopg.connect(self.direct_url(name)) as database, connect(self.redis_url) as client:
            self.check(database, client)


class Running:
    """A program, from entering to leaving."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process = process.spawn(program)

    def __enter__(self) -> None:
        process.wait_until_ready(self._program, self._process, timeout_s=60)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        process.stop(self._program, self._process)
