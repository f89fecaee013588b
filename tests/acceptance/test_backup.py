"""What docs/backup.md promises: a dump restores whole, and a recovery to a point in time has all
that was answered 200 before it."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.local import postgres
from ingest.local.process import Program
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack, request
from tests.conftest import Servers
from tests.support import dumps
from tests.support.deliver import body, order
from tests.support.rows import execute
from tests.support.servers import PATIENT, Running
from tests.support.waiting import end, until

FULL_COUNTS = {
    "events": "SELECT count(*) FROM events",
    "duplicates": "SELECT count(*) FROM duplicates",
    "jobs": "SELECT count(*) FROM jobs",
    "unhandled": "SELECT count(*) FROM unhandled",
}


@pytest.fixture
def make_shop(redis_url: str, tmp_path: Path) -> Iterator[Callable[[str, str], Stack]]:
    """Makes stacks whose workers have the shop's processors, in a folder of that name."""
    made: list[Stack] = []

    def make(url: str, name: str) -> Stack:
        folder = tmp_path / name
        folder.mkdir()
        made.append(Stack(url, redis_url, folder, processors="shop_processors", lease_s="3"))
        shutil.copy(shop_processors.__file__, folder)
        return made[-1]

    yield make
    for stack in made:
        stack.close()


def fill(stack: Stack) -> None:
    """Leave rows of all kinds: work that is done, dead, running, dispatched and never admitted."""
    execute(stack.engine, "CREATE TABLE effects (what text, event text, attempt int)")
    for file in ("broken", "stall"):
        (stack.folder / file).touch()
    stack.receiver()
    worker, relay = stack.worker(), stack.relay()
    notes = ("fails", "discards", "snoozes", "fails twice")
    stack.post_all(
        [
            *(order(number, customer_phone="+966 51-111-0001") for number in range(10)),
            *(order(100 + number, note=note) for number, note in enumerate(notes)),
            *(order(1), order(2, total=99)),
            body("conversation.created", {"conversation_id": 1, "phone": "٠٠٩٦٦٥١١١١٠٠٠٢"}),
            body("nobody.handles", {"id": 1}),
        ]
    )
    assert stack.post(b"no JSON").status == 400
    assert request(stack.ports[0], "POST", "/webhooks/awalchat", order(3)).status == 401
    states = "SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'dead')"
    until(
        lambda: stack.value(FULL_COUNTS["events"]) == 16 and not stack.value(states),
        what="all is worked on",
    )
    stack.command("replay", "--state", "dead", "--processor", "whims", "--reason", "a try")
    until(lambda: not stack.value(states), what="the replay has failed too")
    stack.post(body("contact.created", {"contact_id": 1, "phone": "966511110003"}))
    running = "SELECT count(*) FROM jobs WHERE state = 'running' AND processor = 'stalls'"
    until(lambda: stack.value(running), what="a job runs")
    end(relay)
    worker.kill()
    worker.wait()
    stack.post_all(order(200 + number) for number in range(5))
    for process_ in stack.processes:
        end(process_)


def contents(url: str, schema: str = "ingest") -> tuple[dict[str, str], dict[str, int | None]]:
    """Return the fingerprints of all tables, and where the sequences are."""
    engine = create_engine(parse(url), role=Role.PROCESSOR)
    try:
        with engine.begin() as connection:
            return (dumps.fingerprints(connection, schema), dumps.sequences(connection, schema))
    finally:
        engine.dispose()


@pytest.mark.not_on("external", reason="a restore of public needs its owner")
def test_a_restored_dump_goes_on_where_it_was_made(
    servers: Servers,
    database_url: str,
    make_shop: Callable[[str, str], Stack],
    tmp_path: Path,
) -> None:
    before = make_shop(database_url, "before")
    fill(before)
    dumps.dump(servers, servers.as_administrator(database_url), tmp_path / "dump")
    with servers.database("restored") as name:
        servers.execute(f"ALTER DATABASE {name} SET search_path = ingest, public")
        dumps.restore(servers, servers.direct_url(name), tmp_path / "dump")
        assert contents(servers.direct_url(name)) == contents(
            servers.as_administrator(database_url)
        )
        servers.empty_redis()
        after = make_shop(servers.database_url(name), "after")
        assert "The schema is at" in after.command("migrate")
        known = after.value("SELECT max(id) FROM jobs")
        events = after.value(FULL_COUNTS["events"])
        check_that_it_goes_on(after)
        assert (
            after.value(
                "SELECT min(id) FROM jobs WHERE event IN (SELECT id FROM events"
                " WHERE event_id = 'order.created:300')"
            )
            > known
        )
        assert after.value(FULL_COUNTS["events"]) == events + 5 + 2
        after.close()


def check_that_it_goes_on(stack: Stack) -> None:
    """Check that old work is picked up, what comes is taken, and repeats of before are repeats."""
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.wait_until_idle()
    ran = stack.query("SELECT state, attempt FROM jobs WHERE processor = 'stalls'")
    assert ran == [{"state": "succeeded", "attempt": 2}]
    duplicates = stack.value(FULL_COUNTS["duplicates"])
    answers = stack.post_all([order(300), order(301), order(3, customer_phone="+966 51-111-0001")])
    assert {answer.status for answer in answers} == {200}
    stack.wait_until_idle()
    assert stack.value(FULL_COUNTS["duplicates"]) == duplicates + 1
    assert stack.value("SELECT count(*) FROM orders WHERE order_id >= 200") == 7
    stack.command("replay", "--state", "dead", "--processor", "whims")  # nothing is broken here
    dead = "SELECT count(*) FROM jobs WHERE state = 'dead' AND discarded_at IS NULL"
    stack.wait_until_idle()
    assert stack.value(dead + " AND processor = 'whims' AND failures > 1") == 0
    kept = {
        row["counted"]: row["rows"]
        for row in stack.query("SELECT counted, sum(rows)::int AS rows FROM totals GROUP BY 1")
    }
    assert kept == {name: stack.value(query) for name, query in FULL_COUNTS.items()}


def test_the_schema_alone_moves_to_another_database_of_an_application(
    servers: Servers, redis_url: str, tmp_path: Path
) -> None:
    schema = "hooks"
    application = "CREATE TABLE events (note text); INSERT INTO events VALUES ('mine')"
    with servers.database("shared") as first, servers.database("shared") as second:
        for name in (first, second):
            engine = create_engine(parse(servers.database_url(name)), role=Role.PROCESSOR)
            execute(engine, application)
            engine.dispose()
        stack = Stack(servers.database_url(first), redis_url, tmp_path, database_schema=schema)
        stack.command("migrate")
        stack.receiver()
        assert {answer.status for answer in stack.post_all(map(order, range(5)))} == {200}
        stack.close()
        options = ("-n", schema, "--no-owner")
        dumps.dump(servers, servers.database_url(first), tmp_path / "dump", *options)
        dumps.restore(servers, servers.database_url(second), tmp_path / "dump", "--no-owner")
        assert contents(servers.database_url(second), schema) == contents(
            servers.database_url(first), schema
        )
        folder = tmp_path / "second"
        folder.mkdir()
        moved = Stack(servers.database_url(second), redis_url, folder, database_schema=schema)
        try:
            moved.receiver()
            moved.worker()
            moved.relay()
            moved.post_all(map(order, range(3, 8)))
            done = f"SELECT count(*) FROM {schema}.jobs WHERE state = 'succeeded'"
            until(lambda: moved.value(done) == 8, what="all is worked on")
            repeats = f"SELECT sum(rows) FROM {schema}.totals WHERE counted = 'duplicates'"
            until(lambda: moved.value(repeats) == 2, what="repeats are known")
            assert moved.value("SELECT note FROM public.events") == "mine"
            assert moved.value(f"SELECT count(*) FROM {schema}.orders") == 8
        finally:
            moved.close()


class Sender:
    """Posts orders one after another and keeps when each was answered 200."""

    def __init__(self, stack: Stack) -> None:
        self.answered: dict[int, float] = {}
        """By number of the order, the Unix time of its answer."""
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            if self._stack.post(order(number)).status == 200:
                self.answered[number] = time.time()
            number += 1
            self._stop.wait(0.01)

    def wait_for(self, count: int) -> None:
        """Wait for so many answers more."""
        wanted = len(self.answered) + count
        until(lambda: len(self.answered) >= wanted, what=f"{count} answers")


class ArchivingPostgres:
    """A PostgreSQL of the test's own that archives its WAL, and a second one made from it."""

    def __init__(self, folder: Path) -> None:
        self._binaries = postgres.find_binaries()
        self._archive = folder / "archive"
        self._archive.mkdir()
        self._homes = {name: folder / name for name in ("first", "second")}
        for home in self._homes.values():
            (home / "logs").mkdir(parents=True)
        self.program = self._program(
            "first",
            "archive_mode=on",
            f"archive_command=test ! -f {self._archive}/%f && cp %p {self._archive}/%f",
            "max_wal_senders=2",
        )
        self.program.identity.own(self._archive)

    def url(self, name: str) -> str:
        """Return the address of one of the two."""
        return postgres.url(self._homes[name]) + PATIENT

    def base_backup(self) -> None:
        """Copy the first, while it runs, to where the second is to be."""
        runs_as = self.program.identity
        runs_as.own(self._homes["second"])
        target = self._homes["second"] / "postgres"
        subprocess.run(
            [
                self._binaries / "pg_basebackup",
                "-d",
                self.url("first"),
                "-D",
                target,
                *("-X", "none", "-c", "fast"),
            ],
            check=True,
            capture_output=True,
            user=runs_as.uid,
            group=runs_as.gid,
            extra_groups=None if runs_as.uid is None else [],
            preexec_fn=runs_as.enter,
        )

    def recover(self, to: float) -> Program:
        """Return the second server, which recovers to a Unix time when it starts."""
        signal_file = self._homes["second"] / "postgres" / "recovery.signal"
        signal_file.touch()
        self.program.identity.own(signal_file)
        return self._program(
            "second",
            f"restore_command=cp {self._archive}/%f %p",
            f"recovery_target_time={datetime.fromtimestamp(to, UTC).isoformat()}",
            "recovery_target_action=promote",
        )

    def _program(self, name: str, *settings: str) -> Program:
        home = self._homes[name]
        return postgres.program(home, home, settings=settings)


@pytest.fixture
def archiving(tmp_path_factory: pytest.TempPathFactory) -> ArchivingPostgres:
    """A server whose folder's path is short enough for a socket."""
    return ArchivingPostgres(tmp_path_factory.mktemp("pitr"))


@pytest.mark.not_on(
    *("pgbouncer-session", "pgbouncer-transaction", "postgresql-15", "external"),
    reason="runs a PostgreSQL of its own",
)
def test_a_recovery_to_a_point_in_time_has_all_that_was_answered_before_it(
    archiving: ArchivingPostgres, make_shop: Callable[[str, str], Stack]
) -> None:
    with Running(archiving.program):
        before = make_shop(archiving.url("first"), "before")
        before.command("migrate")
        before.receiver()
        with Sender(before) as sender:
            sender.wait_for(50)
            archiving.base_backup()
            sender.wait_for(50)
            target = time.time()
            sender.wait_for(50)
        segment = before.value("SELECT pg_walfile_name(pg_switch_wal())")
        until(
            lambda: before.value(
                "SELECT last_archived_wal >= :segment FROM pg_stat_archiver", segment=segment
            ),
            what="the log is archived",
        )
        before.close()
    recovered = archiving.recover(target)
    with Running(recovered):
        after = make_shop(archiving.url("second"), "after")
        until(lambda: not after.value("SELECT pg_is_in_recovery()"), what="it is promoted")
        kept = {
            int(row["event_id"].partition(":")[2])
            for row in after.query("SELECT event_id FROM ingest.unadmitted")
        }
        earlier = {number for number, at in sender.answered.items() if at <= target}
        later = sender.answered.keys() - earlier
        assert len(earlier) >= 100
        assert earlier <= kept
        assert len(later - kept) >= len(later) - 1  # one may be committed and not yet answered
        execute(after.engine, "CREATE TABLE effects (what text, event text, attempt int)")
        after.receiver()
        after.worker()
        after.relay()
        resent = after.post_all(
            order(number) for number in sender.answered if number > max(earlier) - 20
        )
        assert {answer.status for answer in resent} == {200}
        done = "SELECT count(*) FROM ingest.jobs WHERE state = 'succeeded'"
        until(
            lambda: after.value(done) == 3 * len(sender.answered),
            what="each is worked on once, by three processors",
        )
        assert after.value("SELECT count(*) FROM ingest.events") == len(sender.answered)
        after.close()
