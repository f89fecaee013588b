"""A client of the Redis that a test uses."""

import redis

from ingest.redis_address import parse_redis


def connect(redis_url: str) -> redis.Redis:
    """Return a client of the Redis at an address."""
    return parse_redis(redis_url).connect()
