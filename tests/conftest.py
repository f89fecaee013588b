"""Real servers for every test that needs one: PostgreSQL and Redis, started once a run."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine

from ingest import settings
from ingest.embedded import postgres, process, valkey
from ingest.embedded.process import Program
from ingest.settings import Settings
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.database import Role, create_engine
from tests.support.redis_client import connect
from tests.support.signing import SECRET

_TEMPLATE = "template_for_tests"


@dataclass(frozen=True)
class Servers:
    """A running PostgreSQL and a running Redis."""

    sockets: Path

    def database_url(self, name: str) -> str:
        return postgres.url(self.sockets, name)

    @property
    def redis_url(self) -> str:
        return valkey.url(self.sockets)

    def execute(self, statement: str) -> None:
        """Run a statement of the administrator's."""
        with psycopg.connect(self.database_url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    home = Path(tempfile.mkdtemp(prefix="ingest-test-"))
    sockets = home / "run"
    sockets.mkdir(mode=0o700)
    (home / "logs").mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        for program in (
            postgres.program(home, sockets, settings=("max_connections=200",)),
            valkey.program(home, sockets),
        ):
            stack.enter_context(Running(program))
        yield Servers(sockets)


class Running:
    """A program, from entering to leaving."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process = process.spawn(program)

    def __enter__(self) -> None:
        process.wait_until_ready(self._program, self._process, timeout_s=60)

    def __exit__(self, *_: object) -> None:
        process.stop(self._program, self._process)


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """A migrated database, to be cloned."""
    servers.execute(f"CREATE DATABASE {_TEMPLATE}")
    engine = create_engine(parse(servers.database_url(_TEMPLATE)), role=Role.MIGRATION)
    with engine.connect() as connection:
        migrations.upgrade(connection)
    with engine.begin() as connection:
        partitions.ensure(connection, today=datetime.now(UTC).date(), days_ahead=2)
    engine.dispose()
    return _TEMPLATE


@contextmanager
def cloned(servers: Servers, template: str) -> Iterator[str]:
    """The address of a migrated database, dropped at the end."""
    name = f"test_{uuid4().hex}"
    servers.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    # Tests ask by bare names; statements of the product name the schema.
    servers.execute(f"ALTER DATABASE {name} SET search_path = ingest, public")
    yield servers.database_url(name)
    servers.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(servers: Servers, template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with cloned(servers, template) as url:
        yield url


@pytest.fixture(scope="module")
def shared_engine(servers: Servers, template: str) -> Iterator[Engine]:
    """An engine on a database of the module's, for tests that commit nothing."""
    with cloned(servers, template) as url:
        found = create_engine(parse(url), role=Role.PROCESSOR)
        yield found
        found.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on it, with room for tests that work from several threads."""
    found = create_engine(parse(database_url), role=Role.PROCESSOR, pool_size=25)
    yield found
    found.dispose()


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """An empty Redis."""
    with connect(servers.redis_url) as client:
        client.flushall()
    return servers.redis_url


@pytest.fixture
def make_settings(database_url: str, redis_url: str) -> Any:
    """Settings for the test's own database and Redis, with whatever else is given."""

    def make(**more: Any) -> Settings:
        own = {
            "database_url": database_url,
            "redis_url": redis_url,
            "awalchat_secrets": SECRET,
        }
        return settings.load(**(own | more))

    return make


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own INGEST_ variables must not change what is tested."""
    import os

    for name in list(os.environ):
        if name.startswith("INGEST_"):
            monkeypatch.delenv(name)
