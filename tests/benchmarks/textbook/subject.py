"""The textbook as a subject."""

from celery import Celery

from ingest.redis_address import parse_redis
from tests.benchmarks.textbook.stored import StoredEvents, analyze, sqlalchemy_url, store
from tests.benchmarks.world import World, start_uvicorn
from tests.support.signing import SECRET


class Textbook(StoredEvents):
    """uvicorn with the receiver, Celery with the worker."""

    name = "textbook"
    path = "/webhooks/awalchat"

    def start_receivers(self, world: World, number: int = 1) -> int:
        """Start uvicorn with so many processes; returns the port."""
        return start_uvicorn(
            world, "tests.benchmarks.textbook.app:app", _environment(world), number
        )

    def fill(self, world: World, count: int, *, first: int = 0) -> None:
        """Store `count` events and send a task message for each."""
        app = Celery(broker=parse_redis(world.redis_url).broker_url)
        for event_id in store(world, count, first):
            app.send_task("process_event", args=(event_id,), ignore_result=True)
        app.close()
        analyze(world)

    def start_workers(self, world: World, number: int = 1) -> None:
        """Start workers of two processes each, at once, and wait until all answer."""
        for each in range(1, number + 1):
            world.start(
                f"worker-{each}",
                [
                    *("-m", "celery", "-A", "tests.benchmarks.textbook.tasks", "worker"),
                    *("--concurrency", "2", "--loglevel", "WARNING", "-n", f"worker-{each}@%h"),
                ],
                _environment(world),
                ready=lambda: True,
            )
        app = Celery(broker=parse_redis(world.redis_url).broker_url)
        world.fleet.until(
            lambda: len(app.control.ping(timeout=1, limit=number)) == number,
            what="the workers answer",
            timeout_s=60,
        )
        app.close()


def _environment(world: World) -> dict[str, str]:
    return {
        "BENCH_DATABASE_URL": sqlalchemy_url(world),
        "BENCH_REDIS_URL": parse_redis(world.redis_url).broker_url,
        "BENCH_SECRET": SECRET,
    }
