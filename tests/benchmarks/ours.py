"""Our own pipeline as a subject, with the settings that users get: the defaults."""

import asyncio
import hashlib
import os
import time
from datetime import UTC, datetime

from ingest import queues
from ingest.cli.listening import listen
from ingest.dispatch import IDS_PER_MESSAGE, Dispatcher
from ingest.ids import RANDOM_BYTES, delivery_id
from ingest.redis_address import parse_redis
from ingest.sources.base import Source
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, WriterConnection, create_engine
from ingest.store.pipeline import deliveries
from ingest.store.pipeline.deliveries import Delivery
from tests.benchmarks import messages
from tests.benchmarks.subject import Drained
from tests.benchmarks.world import World, answers
from tests.support.signing import SECRET
from tests.support.sources import awalchat

PATH = "/webhooks/awalchat"
_FILL_BATCH = 500


class Ours:
    """`ingest serve`, `ingest worker`, `ingest relay`."""

    name = "ours"
    path = PATH
    receiver: tuple[str, ...] = ("-m", "ingest", "serve", "--fd")
    """What starts one, before the number of the socket that it listens on."""

    def __init__(self, **settings: str) -> None:
        """`settings` in lower case, without `INGEST_`."""
        self._settings = {f"INGEST_{name.upper()}": value for name, value in settings.items()}

    def prepare(self, world: World) -> None:
        """The schema."""
        engine = create_engine(parse(world.database_url), role=Role.MIGRATION)
        with engine.connect() as connection:
            migrations.upgrade(connection)
        with engine.begin() as connection:
            partitions.ensure(connection, today=datetime.now(UTC).date(), days_ahead=2)
        engine.dispose()
        with world.connect() as connection:  # the benchmarks ask by bare names
            connection.execute("ALTER DATABASE postgres SET search_path = ingest, public")

    def start_receivers(self, world: World, number: int = 1) -> int:
        """Start receivers on one port; returns it."""
        with listen("127.0.0.1", 0) as listener:
            port: int = listener.getsockname()[1]
            for each in range(1, number + 1):
                world.start(
                    f"receiver-{each}",
                    [*self.receiver, str(listener.fileno())],
                    self._environment(world),
                    ready=lambda: answers(port, "/health/ready"),
                    pass_fds=(listener.fileno(),),
                )
        return port

    def start_workers(self, world: World, number: int = 1) -> None:
        """Start workers, each of two processes, and the relay."""
        for each in range(1, number + 1):
            self._start_work(world, "worker", each)
        self._start_work(world, "relay", 1)

    def fill(self, world: World, count: int, *, first: int = 0) -> None:
        """`count` deliveries that wait, with the hints that the receiver sends for them."""
        asyncio.run(_fill(world, count, first))

    def is_done(self, world: World) -> bool:
        """Nothing is unadmitted, due or running."""
        return not world.value(
            "SELECT ((SELECT count(*) FROM (SELECT FROM unadmitted LIMIT 1))"
            " + (SELECT count(*) FROM (SELECT FROM jobs WHERE due_at IS NOT NULL LIMIT 1))"
            " + (SELECT count(*) FROM (SELECT FROM jobs WHERE lease_until IS NOT NULL LIMIT 1)))"
        )

    def drained(self, world: World, *, since: float = 0.0) -> Drained:
        """By the jobs' own times; only those that began after `since` (Unix seconds)."""
        with world.connect() as connection:
            row = connection.execute(
                "SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at))"
                " FROM jobs WHERE state = 'succeeded' AND started_at >= to_timestamp(%s)",
                [since],
            ).fetchone()
        assert row is not None
        return Drained(events=row[0], seconds=float(row[1] or 0))

    def _start_work(self, world: World, kind: str, number: int) -> None:
        alive = world.home / f"{kind}-{number}.alive"
        alive.unlink(missing_ok=True)
        world.start(
            f"{kind}-{number}",
            ["-m", "workers", kind],
            self._environment(world) | {"INGEST_HEARTBEAT_FILE": str(alive)},
            ready=alive.exists,
        )

    def _environment(self, world: World) -> dict[str, str]:
        return {
            "INGEST_DATA": str(world.home),
            "INGEST_DATABASE_URL": world.database_url,
            "INGEST_REDIS_URL": world.redis_url,
            "INGEST_AWALCHAT_SECRETS": SECRET,
            "INGEST_LOG_FORMAT": "json",
            **self._settings,
        }


async def _fill(world: World, count: int, first: int) -> None:
    source = awalchat(SECRET)
    dispatcher = Dispatcher(parse_redis(world.redis_url))
    connection = await WriterConnection.open(parse(world.database_url))
    async with connection:
        for start in range(first, first + count, _FILL_BATCH):
            batch = [
                _delivery(source, number)
                for number in range(start, min(start + _FILL_BATCH, first + count))
            ]
            await deliveries.insert(connection, batch, queue=queues.LIVE, dispatch_grace_s=3600)
            ids = [each.id for each in batch]
            for place in range(0, len(ids), IDS_PER_MESSAGE):
                dispatcher.dispatch(queues.LIVE, deliveries=ids[place : place + IDS_PER_MESSAGE])
    dispatcher.close()


def _delivery(source: Source, number: int) -> Delivery:
    raw = messages.body(number)
    now = time.time()
    return Delivery(
        id=delivery_id(int(now * 1000), os.urandom(RANDOM_BYTES)),
        source=source.slug,
        received_at=datetime.fromtimestamp(now, UTC),
        key_id=source.key_ids[0],
        headers=f'[["x-awal-webhook-signature", "{hashlib.sha256(raw).hexdigest()}"]]',
        body=raw,
        name=source.identify(source.parse(raw)),
        rejected=None,
    )
