"""The set-ups that the tests run on, by the names of the option `--servers`."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

import psycopg
import pytest
from psycopg import sql

from ingest.local import postgres, valkey
from tests.support.ports import free_port
from tests.support.servers import PATIENT, Running, Servers, debian, neighbour, pgbouncer
from tests.support.servers.pgbouncer import Mode

POOLED = ("pgbouncer-session", "pgbouncer-transaction")
POOLERS_ROLE = "the pooler logs in as one role, whoever comes"
_ROOM = ("max_connections=200",)


@contextmanager
def started(name: str) -> Iterator[Servers]:
    """Start the servers of a set-up, and end them."""
    home = Path(tempfile.mkdtemp(prefix="ingest-test-"))
    (home / "run").mkdir(mode=0o700)
    (home / "logs").mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        yield SETUPS[name](home, home / "run", stack)


def installed(path: Path | None, what: str) -> Path:
    """Return `path`, if there is such a file; else skip, or fail in CI."""
    if path is not None and path.exists():
        return path
    message = f"{what} is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def embedded(home: Path, sockets: Path, stack: ExitStack) -> Servers:
    """Start the servers of `ingest up`."""
    return _on_sockets(home, sockets, stack, binaries=None)


def postgresql_15(home: Path, sockets: Path, stack: ExitStack) -> Servers:
    """Start the same, with the oldest PostgreSQL that is supported."""
    return _on_sockets(home, sockets, stack, binaries=installed(debian.POSTGRES, "PostgreSQL 15"))


def pooled(mode: Mode) -> Callable[[Path, Path, ExitStack], Servers]:
    """Return what starts the servers of `ingest up`, and PgBouncer in front of PostgreSQL."""

    def start(home: Path, sockets: Path, stack: ExitStack) -> Servers:
        binary = installed(pgbouncer.find_binary(), "PgBouncer")
        direct = _on_sockets(home, sockets, stack, binaries=None)
        bouncer = pgbouncer.program(
            home, sockets, binary=binary, mode=mode, user=postgres.USER, pool_size=60
        )
        stack.enter_context(Running(bouncer))
        return Servers(
            administrator=direct.administrator,
            application=pgbouncer.url(home, mode, "{}", user=postgres.USER) + PATIENT,
            redis_url=direct.redis_url,
            binaries=direct.binaries,
            owner=postgres.USER,
        )

    return start


def external(home: Path, sockets: Path, stack: ExitStack) -> Servers:
    """Start Debian's servers, which another application uses too; the role is no superuser."""
    installed(debian.POSTGRES, "PostgreSQL 15")
    redis = installed(debian.find_redis(), "Redis")
    certificates = debian.make_certificates(home)
    ports = free_port(), free_port()
    for program in (
        debian.postgres_program(home, sockets, certificates, port=ports[0]),
        debian.redis_program(home, redis, certificates, port=ports[1]),
    ):
        stack.enter_context(Running(program))
    administrator = postgres.url(sockets, "{}", port=ports[0]) + PATIENT
    with psycopg.connect(administrator.format("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(debian.ROLE), debian.PASSWORD
            )
        )
    servers = Servers(
        administrator=administrator,
        application=debian.postgres_url(certificates, port=ports[0]) + PATIENT,
        redis_url=debian.redis_url(certificates, port=ports[1]),
        binaries=debian.POSTGRES,
        owner=debian.ROLE,
        tables=neighbour.TABLES,
        fill=neighbour.fill,
        check=neighbour.check,
    )
    servers.empty_redis()
    return servers


def _on_sockets(home: Path, sockets: Path, stack: ExitStack, *, binaries: Path | None) -> Servers:
    for program in (
        postgres.program(home, sockets, settings=_ROOM, binaries=binaries),
        valkey.program(home, sockets),
    ):
        stack.enter_context(Running(program))
    url = postgres.url(sockets, "{}") + PATIENT
    return Servers(
        administrator=url,
        application=url,
        redis_url=valkey.url(sockets),
        binaries=binaries or postgres.find_binaries(),
        owner=postgres.USER,
    )


SETUPS: Mapping[str, Callable[[Path, Path, ExitStack], Servers]] = MappingProxyType(
    {
        "embedded": embedded,
        "postgresql-15": postgresql_15,
        "pgbouncer-session": pooled("session"),
        "pgbouncer-transaction": pooled("transaction"),
        "external": external,
    }
)
