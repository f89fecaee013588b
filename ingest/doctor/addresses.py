"""What the host names of the addresses resolve to."""

import socket
from collections.abc import Iterator

from ingest.doctor.findings import Finding, listed, note
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError

ADDRESS = note("address")


def resolve(setup: Setup) -> Iterator[Finding]:
    """Say what the hosts of PostgreSQL and Redis resolve to.

    A name that does not resolve is told by the check that connects.
    """
    for variable, hosts in _hosts(setup):
        for host in hosts:
            numbers = _look_up(host)
            if numbers and numbers != [host]:
                yield ADDRESS.found(f"{variable}: {host} resolves to {listed(numbers)}.")


def _hosts(setup: Setup) -> Iterator[tuple[str, list[str]]]:
    loaded = setup.settings
    try:
        named = loaded.database.parameters.get("host", "").split(",")
        yield "INGEST_DATABASE_URL", [host for host in named if host and not host.startswith("/")]
        if loaded.redis.path is None:
            yield "INGEST_REDIS_URL", [loaded.redis.host]
    except SettingsError:
        return  # told by the checks that connect


def _look_up(host: str) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))
