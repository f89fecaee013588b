"""How long the first byte of each page and search of the console takes, with a month of events
behind it: warm, and with nothing in any cache."""

import http.client
import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.console.services.addresses import Addresses
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.benchmarks.world import World, answers
from tests.support import console_paths
from tests.support.fleet import Member
from tests.support.ports import free_port
from tests.support.signing import SECRET

_COLD_RUNS = 3
_DROPS = Path("/proc/sys/vm/drop_caches")
_READ_PARTLY = re.compile(rb'read-to"[^>]*>(?!\s*Read to the end)\s*\S|at least')
"""How pages say that they have not read everything."""
_BUILT_IN, _DESCRIBED = ("awalchat", "whatsapp"), ("shopify", "github", "stripe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """How long the first byte of a page took, in milliseconds."""

    path: str
    cold_ms: float | None
    """The median, with the caches of PostgreSQL and of the system empty; None: only root may empty
    them, and `--short` does not."""
    warm_ms: float
    """The median, with everything cached."""
    worst_ms: float
    """Of the warm ones."""
    is_partial: bool
    """Whether the page says that it has not read everything."""


def pages(world: World, *, cold: bool, runs: int) -> Iterator[Waited]:
    """Every page and search, each `cold`, if that is wanted and may be, then so many times warm."""
    engine = create_engine(parse(world.database_url), role=Role.OPERATOR)
    with engine.connect() as connection:
        about = console_paths.stored(connection)
    paths = list(console_paths.paths(about, Addresses(engine, random=os.urandom).path))
    engine.dispose()
    port = _start(world)
    postgres, is_cold = world.fleet.members["postgres"], cold and os.access(_DROPS, os.W_OK)
    for path in paths:
        cold_runs = [
            _cold(world, postgres, port, path) for _ in range(_COLD_RUNS if is_cold else 0)
        ]
        _first_byte(port, path)
        waited = [_first_byte(port, path) for _ in range(runs)]
        taken = [ms for ms, _ in waited]
        yield Waited(
            path=path,
            cold_ms=statistics.median(cold_runs) if cold_runs else None,
            warm_ms=statistics.median(taken),
            worst_ms=max(taken),
            is_partial=any(_READ_PARTLY.search(body) for _, body in waited),
        )
    world.stop("console")


def _start(world: World) -> int:
    port = free_port()
    inherited = {"INGEST_DATABASE_URL": world.database_url, "INGEST_REDIS_URL": world.redis_url}
    described = world.home / "sources.toml"
    described.write_text("\n".join(f'[{slug}]\npreset = "{slug}"' for slug in _DESCRIBED))
    secrets = {f"INGEST_{slug.upper()}_SECRETS": SECRET for slug in (*_BUILT_IN, *_DESCRIBED)}
    secrets["INGEST_SOURCES"] = str(described)
    world.start(
        "console-1",
        ["-m", "ingest", "console", "--port", str(port)],
        inherited | secrets | {"HOME": os.environ.get("HOME", "/")},
        ready=lambda: answers(port, "/health/live"),
    )
    return port


def _cold(world: World, postgres: Member, port: int, path: str) -> float:
    """Ask for a page when everything has to come from the disk; the console itself was there."""
    world.fleet.hold_down(postgres, postgres.program.stop_signal)
    subprocess.run(["sync"], check=True)
    _DROPS.write_text("3\n")
    world.fleet.bring_back(postgres)
    world.fleet.until(
        lambda: postgres.program.ready(postgres.pid), what="PostgreSQL is back", timeout_s=60
    )
    return _first_byte(port, path)[0]


def _first_byte(port: int, path: str) -> tuple[float, bytes]:
    """Return how long the first byte took, and the page."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        began = time.perf_counter()
        client.request("GET", path)
        answer = client.getresponse()
        first = answer.read(1)
        taken = (time.perf_counter() - began) * 1000
        body = first + answer.read()  # an export that is not read to its end refuses the next
        assert answer.status == 200, (path, answer.status, body[:500])
        return taken, body
    finally:
        client.close()
