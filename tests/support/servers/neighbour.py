"""Another application in the same database and the same Redis, with names that are ours too."""

from typing import Any

import psycopg
import redis

TABLES = """
    CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO public.alembic_version VALUES ('0001');
    CREATE TABLE public.orders (id int PRIMARY KEY, note text);
    INSERT INTO public.orders VALUES (1, 'mine');
    CREATE TABLE public.events (id int PRIMARY KEY, note text);
    INSERT INTO public.events VALUES (1, 'mine');
    CREATE TABLE public.jobs (id int PRIMARY KEY, note text);
    INSERT INTO public.jobs VALUES (1, 'mine');
"""
_CONTENTS = """
    SELECT 'alembic_version', version_num FROM public.alembic_version
    UNION ALL SELECT 'orders', note FROM public.orders
    UNION ALL SELECT 'events', note FROM public.events
    UNION ALL SELECT 'jobs', note FROM public.jobs
"""
_LISTS = {
    "celery": [b'{"body": "W10="}', b"a task"],
    "events": [b"a note"],
    "_kombu.binding.celery": [b"celery"],
}


def fill(client: redis.Redis) -> None:
    """Put the keys of another Celery application into Redis."""
    for name, values in _LISTS.items():
        if name.startswith("_kombu"):
            client.sadd(name, *values)
        else:
            client.rpush(name, *values)


def check(database: psycopg.Connection, client: redis.Redis) -> None:
    """Raise AssertionError if a table or a key has changed."""
    contents: dict[str, str] = dict(database.execute(_CONTENTS).fetchall())
    assert contents == {
        "alembic_version": "0001",
        "orders": "mine",
        "events": "mine",
        "jobs": "mine",
    }
    kept: dict[str, Any] = {
        "celery": client.lrange("celery", 0, -1),
        "events": client.lrange("events", 0, -1),
        "_kombu.binding.celery": list(client.smembers("_kombu.binding.celery")),
    }
    assert kept == _LISTS
