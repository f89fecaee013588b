"""The health of PostgreSQL and Redis, and the length of the queues."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import redis
from sqlalchemy import Connection

from ingest import queues
from ingest.redis_address import RedisAddress
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseHealth:
    """PostgreSQL's answer."""

    version: str
    size_bytes: int
    answers_in_s: float
    connections: int
    max_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisHealth:
    """Redis's answer. Without Redis, work starts later by a sweep of the relay."""

    version: str | None
    """None: it does not answer."""
    answers_in_s: float | None
    waiting: dict[str, int]
    """The number of messages in each queue."""


UNKNOWN_REDIS = RedisHealth(version=None, answers_in_s=None, waiting={})


def of_database(connection: Connection) -> DatabaseHealth:
    """Ask PostgreSQL.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    began = time.perf_counter()
    row = connection.execute(_DATABASE).one()
    return DatabaseHealth(
        version=row.version,
        size_bytes=row.size_bytes,
        answers_in_s=time.perf_counter() - began,
        connections=row.connections,
        max_connections=row.max_connections,
    )


def of_redis(address: RedisAddress, queue_names: Iterable[str]) -> RedisHealth:
    """Ask Redis, which may be down, for its version and the length of queues and their backlogs."""
    client = address.connect()
    began = time.perf_counter()
    try:
        version = str(client.info("server")["redis_version"])
        answers_in_s = time.perf_counter() - began
        keys = [key for name in queue_names for key in queues.lanes(name)]
        waiting = {key: int(client.llen(address.key(key))) for key in keys}
    except (redis.RedisError, OSError):
        return UNKNOWN_REDIS
    finally:
        client.close()
    return RedisHealth(version=version, answers_in_s=answers_in_s, waiting=waiting)


_DATABASE = statement(
    """
    SELECT current_setting('server_version') AS version,
           pg_database_size(current_database()) AS size_bytes,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
               AS connections,
           CAST(current_setting('max_connections') AS integer) AS max_connections
    """
)
