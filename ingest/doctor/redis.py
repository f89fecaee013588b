"""Whether Redis answers and takes our messages, its policy, and whose keys have our prefix."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import redis
from sqlalchemy.exc import SQLAlchemyError

from ingest import queues
from ingest.broker import refuse_cluster
from ingest.doctor.findings import Finding, Kind, error, listed, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError
from ingest.redis_address import RedisAddress
from ingest.store.pipeline import processors

_WAITS = "Events are stored, and processed once Redis is back."
NO_REDIS = error("no_redis", "docs/getting-started.md shows both ways.")
UNREACHABLE = error(
    "redis_unreachable", f"Start Redis, or correct host and port in INGEST_REDIS_URL. {_WAITS}"
)
HOST_NOT_FOUND = error(
    "redis_host_not_found",
    f"Correct the host in INGEST_REDIS_URL, or the name service. {_WAITS}",
)
TIMEOUT = error("redis_timeout", f"Look at firewalls and at the load of Redis. {_WAITS}")
ACCESS_DENIED = error(
    "redis_access_denied",
    f"Correct user and password in INGEST_REDIS_URL, or the user's ACL. {_WAITS}",
)
TLS_FAILED = error(
    "redis_tls_failed", f"Correct ssl_ca_certs and ssl_check_hostname in the address. {_WAITS}"
)
REFUSES = error("redis_refuses", f"Look at Redis's log and its memory. {_WAITS}")
CLUSTER = error("redis_cluster", "Name a single Redis: no process starts on a cluster.")
EVICTS = error(
    "redis_evicts",
    "Set maxmemory-policy noeviction: otherwise messages vanish when the memory is full, and their"
    " work waits for the relay.",
)
EVICTS_OTHERS = warning(
    "redis_evicts_expiring",
    "Set maxmemory-policy noeviction. Our keys do not expire and stay, but a full memory then"
    " refuses our messages.",
)
FOREIGN_KEY = error(
    "redis_foreign_key",
    "Set INGEST_REDIS_PREFIX to a prefix that nobody else uses: no message gets through that key.",
)
FOREIGN_DATA = warning(
    "redis_foreign_data", "Set INGEST_REDIS_PREFIX to a prefix that nobody else uses."
)
VERSION = note("redis_version")

_TIMEOUT_S = 2.0
_SHOWN = 3
_SCANNED = 20_000
"""Keys that are looked at, at most: the Redis may be another application's too."""
_NAME_LIMIT = 100
_OF_KOMBU = ("unacked", "unacked_index", "unacked_mutex")


def reach(setup: Setup) -> Iterator[Finding]:
    """Connect, log in and write, as the dispatcher does."""
    try:
        address = setup.settings.redis
        refuse_cluster(address)
        with closing(address.connect(timeout_s=_TIMEOUT_S)) as client:
            version = client.info("server")["redis_version"]
    except SettingsError as problem:
        yield (CLUSTER if problem.reason == CLUSTER.slug else NO_REDIS).found(str(problem))
    except (redis.RedisError, OSError) as problem:
        kind, why = _explain(problem)
        yield kind.found(f"Redis at {address}: {why}.")
    else:
        yield VERSION.found(f"Redis at {address} is version {version}.")


def _explain(problem: BaseException) -> tuple[Kind, str]:
    """Return the kind of a failure, and why; redis-py's own text may hold the address."""
    chain = list(_causes(problem))
    for kinds, kind, why in _CAUSES:
        if any(isinstance(cause, kinds) for cause in chain):
            return kind, why
    return UNREACHABLE, "it does not answer"


_CAUSES: tuple[tuple[tuple[type[BaseException], ...], Kind, str], ...] = (
    (
        (redis.AuthenticationError, redis.exceptions.NoPermissionError),
        ACCESS_DENIED,
        "it does not let the user in",
    ),
    ((socket.gaierror,), HOST_NOT_FOUND, "the host name does not resolve"),
    ((ssl.SSLError,), TLS_FAILED, "TLS fails"),
    ((TimeoutError, redis.TimeoutError), TIMEOUT, "it does not answer in time"),
    ((ConnectionRefusedError, FileNotFoundError), UNREACHABLE, "nothing listens there"),
    ((redis.ResponseError,), REFUSES, "it answers with an error"),
)


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def policy(setup: Setup) -> Iterator[Finding]:
    """Look at what Redis does when its memory is full."""
    address = setup.settings.redis
    with closing(address.connect(timeout_s=_TIMEOUT_S)) as client:
        memory = client.info("memory")
    name = str(memory.get("maxmemory_policy", "noeviction"))
    if name.startswith("allkeys-"):
        yield EVICTS.found(f"Redis at {address} has maxmemory-policy {name}.")
    elif name != "noeviction":
        yield EVICTS_OTHERS.found(f"Redis at {address} has maxmemory-policy {name}.")


def keys(setup: Setup) -> Iterator[Finding]:
    """Look for keys of others under our prefix."""
    address = setup.settings.redis
    lanes = _lanes(setup)
    with closing(address.connect(timeout_s=_TIMEOUT_S)) as client:
        kinds = {lane: _text(client.type(address.key(lane))) for lane in lanes}
        foreign = sorted(lane for lane, kind in kinds.items() if kind not in ("list", "none"))
        others = _others(client, address, known={*lanes, *_OF_KOMBU})
    if foreign:
        yield FOREIGN_KEY.found(
            f"Redis at {address}: the key of our queue {listed(foreign)} holds another kind of"
            " value."
        )
    if others:
        yield FOREIGN_DATA.found(
            f"Redis at {address} has keys under our prefix {address.key_prefix} that are not ours:"
            f" {listed(others[:_SHOWN])}{' …' if len(others) > _SHOWN else ''}."
        )


def _lanes(setup: Setup) -> list[str]:
    """Return the names of our queues and their lanes, as far as the database knows them."""
    names = {queues.LIVE, queues.REPLAY}
    try:
        with setup.connected() as connection:
            names.update(processors.queues(connection))
    except (SQLAlchemyError, SettingsError):  # told by the checks of the database
        pass
    return [lane for name in sorted(names) for lane in queues.lanes(name)]


def _others(client: redis.Redis, address: RedisAddress, *, known: set[str]) -> list[str]:
    """Return the names under our prefix that are not known, of the keys that are looked at."""
    scanned = client.scan_iter(match=f"{address.key_prefix}*", count=1_000)
    names = {_printable(_text(key)) for key in islice(scanned, _SCANNED)}
    return sorted(names - {address.key(name) for name in known})


def _printable(name: str) -> str:
    return name if name.isprintable() and len(name) <= _NAME_LIMIT else "one with another name"


def _text(answer: str | bytes) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer
