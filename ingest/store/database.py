"""Connections: one address, and per role the limits that keep a stuck statement from stopping
everything."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import sqlalchemy
from sqlalchemy import Engine

CONNECT_TIMEOUT_S = 2


class Role(enum.Enum):
    """What a connection is for."""

    RECEIVER = "receiver"
    WORKER = "worker"
    PROCESSOR = "processor"
    RELAY = "relay"
    OPERATOR = "operator"
    MIGRATION = "migration"


# Renewing a lease updates the row that the job's own transaction finishes: under a stricter
# isolation, which a database may be set to, that would be a conflict.
_COMMON = {"default_transaction_isolation": "read\\ committed"}
# PostgreSQL's own time-outs are all off by default. A server whose client was killed goes on with
# its statement, and keeps its locks, until `client_connection_check_interval` notices.
_SETTINGS: Mapping[Role, Mapping[str, str]] = MappingProxyType(
    {
        Role.RECEIVER: {"synchronous_commit": "on", "lock_timeout": "1s"},
        Role.WORKER: {
            "synchronous_commit": "on",
            "lock_timeout": "10s",
            "client_connection_check_interval": "1s",
            "idle_in_transaction_session_timeout": "5s",
        },
        # A worker that is frozen in the middle of a statement of its own must not block the others.
        # What a processor does between its statements is its own business.
        Role.PROCESSOR: {
            "synchronous_commit": "on",
            "lock_timeout": "10s",
            "client_connection_check_interval": "1s",
        },
        Role.RELAY: {"statement_timeout": "10s", "lock_timeout": "2s"},
        Role.OPERATOR: {"statement_timeout": "30s", "lock_timeout": "2s"},
        Role.MIGRATION: {"statement_timeout": "60s", "lock_timeout": "4s"},
    }
)


def create_engine(url: str, *, role: Role, pool_size: int = 1) -> Engine:
    """An engine on psycopg, its pool at most `pool_size`, which never logs a parameter."""
    return sqlalchemy.create_engine(
        _scheme(url, "postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": options(role)},
    )


def conninfo(url: str) -> str:
    """The address as libpq reads it, for connections that psycopg opens itself."""
    return _scheme(url, "postgresql")


def options(role: Role) -> str:
    """libpq's `options` that set a role's limits for the session."""
    settings = {**_COMMON, **_SETTINGS[role]}
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def describe(url: str) -> str:
    """The address without its password, for people and logs."""
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query).get("host", ["local socket"])[0]
    return f"{parts.path.lstrip('/') or 'postgres'} at {host}" + (
        f":{parts.port}" if parts.port else ""
    )


def _scheme(url: str, scheme: str) -> str:
    return scheme + url[url.index("://") :]
