"""Procrastinate on PostgreSQL as a subject."""

from procrastinate import App, SyncPsycopgConnector

from tests.benchmarks.textbook.stored import StoredEvents, analyze, store
from tests.benchmarks.world import World

_WORKER = "tests.benchmarks.peers.procrastinate_worker.app"


class Procrastinate(StoredEvents):
    """`procrastinate worker`, with coroutines."""

    name = "procrastinate"

    def prepare(self, world: World) -> None:
        """The tables, and Procrastinate's schema."""
        super().prepare(world)
        with _app(world).open() as app:
            app.schema_manager.apply_schema()

    def fill(self, world: World, count: int, *, first: int = 0) -> None:
        """Store `count` events and defer a job for each."""
        jobs = [{"event_id": event_id} for event_id in store(world, count, first)]
        with _app(world).open() as app:
            app.configure_task("process").batch_defer(*jobs)
        analyze(world)

    def start_workers(self, world: World, number: int = 1) -> None:
        """Start pairs of workers, each of which is one process."""
        for each in range(1, 2 * number + 1):
            world.start(
                f"worker-{each}",
                ["-m", "procrastinate", "--app", _WORKER, "worker"],
                {"BENCH_DATABASE_URL": world.database_url},
                ready=lambda: True,
            )


def _app(world: World) -> App:
    return App(connector=SyncPsycopgConnector(conninfo=world.database_url))
