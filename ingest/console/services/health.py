"""Whether PostgreSQL and Redis are well, and what lies in the queues."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import redis
from sqlalchemy import Connection

from ingest import queues
from ingest.redis_address import RedisAddress
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """PostgreSQL, as it answers."""

    version: str
    size_bytes: int
    answers_in_s: float
    connections: int
    max_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorbell:
    """Redis. Without it hints are late by a sweep of the relay, and nothing else."""

    version: str | None
    """None: it does not answer."""
    answers_in_s: float | None
    waiting: dict[str, int]
    """Messages in each lane."""


def of_database(connection: Connection) -> Database:
    """Ask PostgreSQL.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    began = time.perf_counter()
    row = connection.execute(_DATABASE).one()
    return Database(
        version=row.version,
        size_bytes=row.size_bytes,
        answers_in_s=time.perf_counter() - began,
        connections=row.connections,
        max_connections=row.max_connections,
    )


def of_redis(address: RedisAddress, lanes: Iterable[str]) -> Doorbell:
    """Ask Redis, which may well be away, and what waits in these queues and in the lane beside
    each."""
    client = address.connect()
    began = time.perf_counter()
    try:
        version = str(client.info("server")["redis_version"])
        answers_in_s = time.perf_counter() - began
        both = [lane for queue in lanes for lane in (queue, queues.overdue(queue))]
        waiting = {lane: int(client.llen(address.key(lane))) for lane in both}
    except (redis.RedisError, OSError):
        return Doorbell(version=None, answers_in_s=None, waiting={})
    finally:
        client.close()
    return Doorbell(version=version, answers_in_s=answers_in_s, waiting=waiting)


_DATABASE = statement(
    """
    SELECT current_setting('server_version') AS version,
           pg_database_size(current_database()) AS size_bytes,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
               AS connections,
           CAST(current_setting('max_connections') AS integer) AS max_connections
    """
)
