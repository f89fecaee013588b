"""A pipeline in which anything may befall anybody, played a turn at a time."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, text

import workers.processors
from ingest.console.services.bulk_runner import BulkRunner
from ingest.errors import DispatchFailed
from ingest.settings import load
from ingest.store.bulk import changes, replay
from ingest.store.search.filters import EventFilter
from tests.integration.conftest import NoLeases, Sent, Worker
from tests.support import stored
from tests.support.deliver import deliver
from tests.support.fault_injection import BROKEN, Fault, Mortal
from tests.support.generated_events import TYPES
from tests.support.rows import execute, rows
from workers import Event, Snooze, registry
from workers.recovery import rescue
from workers.registry import Declaration
from workers.relay.sweep import Relay
from workers.retry import RetryPolicy

KEEPERS = [
    each for each in registry.declared if each.function.__module__.startswith(registry.BUILT_IN)
]
assert len(KEEPERS) == len(workers.processors.__all__)
AT_ONCE = RetryPolicy(base_s=0.001, cap_s=0.001)
ROUNDS = 20
"""In how many rounds without a fault everything must have come to its end."""


def tally(moods: Sequence[str]) -> Declaration:
    """A user's own processor that counts events; its first attempts end as `moods` say."""

    def count(event: Event, db: Connection) -> None:
        db.execute(
            text("INSERT INTO effects VALUES (:event, :attempt)"),
            {"event": event.id, "attempt": event.attempt},
        )
        mood = moods[event.attempt - 1] if event.attempt <= len(moods) else "works"
        if mood == "fails":
            raise ValueError("not yet")
        if mood == "snoozes":
            raise Snooze(0)

    return Declaration(
        function=count,
        types=TYPES,
        name=stored.TALLY,
        batch=False,
        queue="events",
        threads=1,
        max_attempts=None,
        timeout_s=None,
        retry_base_s=None,
        retry_max_delay_s=None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that goes on in the pipeline, and what befalls whoever does it."""

    does: str
    fault: Fault | None
    other: Fault | None
    """Of the process that works while this one stalls."""
    choice: int
    """Which of the deliveries, messages or events it is about."""
    publish: "FailingPublish | None" = None
    """The message of the relay that Redis does not confirm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingPublish:
    """A message that Redis does not confirm."""

    number: int
    """Of the messages that are sent, from 0 on."""
    is_taken: bool
    """Whether Redis has taken it all the same."""


class Unconfirmed(Sent):
    """Keeps messages, one of which is not confirmed."""

    def __init__(self, failing: FailingPublish | None) -> None:
        super().__init__()
        self._failing = failing
        self._number = 0
        self.has_failed = False

    def dispatch(
        self, queue: str, *, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()
    ) -> None:
        fails = self._failing is not None and self._number == self._failing.number
        self._number += 1
        if not fails or (self._failing is not None and self._failing.is_taken):
            super().dispatch(queue, deliveries=deliveries, jobs=jobs)
        if fails:
            self.has_failed = True
            raise DispatchFailed("Redis took no message.", reason="dispatch_failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What arrives, in its order, and what goes on meanwhile."""

    arriving: list[bytes]
    turns: list[Turn]
    moods: list[str]


class Process(Worker):
    """A worker process that can be killed: its record stays, under a name of its own."""

    def __init__(
        self, mortal: Mortal, url: str, folder: Path, declarations: list[Declaration]
    ) -> None:
        super().__init__(
            mortal.engine,
            url,
            folder,
            declarations,
            name=f"test:{uuid4().hex}",
            effects=mortal.effects,
            # A killed process takes its threads along, and one that stalls renews nothing.
            leases=NoLeases(),
            clock=lambda: 0.0,
            uniform=lambda low, _high: low,
            max_attempts=1_000,
            redispatch_after_s=0.001,
        )
        self._mortal = mortal
        mortal.on_death(self.vanish)

    def process(self, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()) -> None:
        """What a process does that is given the same again after its connection broke."""
        try:
            super().process(deliveries, jobs)
        except BROKEN:
            if self._mortal.is_dead or not self._mortal.was_cut:
                raise
            self._mortal.was_cut = False
            super().process(deliveries, jobs)


class Pipeline:
    """Sender, workers, relay and operator around one database, a turn at a time."""

    def __init__(self, url: str, engine: Engine, folder: Path, mortals: Sequence[Mortal]) -> None:
        self._url = url
        self._engine = engine
        self._folder = folder
        self._mortals = mortals
        self.has_struck = False
        self.struck: list[bool] = []
        """Whether the fault of each turn of the last run came to pass."""
        # The address is named when a fault cuts the relay's connection.
        self._options = load(database_url=url, redispatch_after_s=0.001, relay_batch=1_000)

    def run(self, scenario: Scenario) -> None:
        """Play it out, then let everything come to its end, and check that."""
        stored.empty(self._engine)
        self._declarations = [*KEEPERS, tally(scenario.moods)]
        self._arriving = list(scenario.arriving)
        self._arrived: dict[UUID, bytes] = {}
        self._messages: list[tuple[Sequence[UUID], Sequence[int]]] = []
        self._replayed: Counter[int] = Counter()
        self.has_struck = False
        self.struck.clear()
        for turn in scenario.turns:
            self.has_struck = False
            getattr(self, f"_{turn.does}")(turn)
            self.struck.append(self.has_struck)
        self._settle()
        stored.check(self._engine, self._arrived, self._replayed)

    def _arrive(self, turn: Turn) -> None:
        count = turn.choice + 1
        bodies, self._arriving = self._arriving[:count], self._arriving[count:]
        self._store(bodies)

    def _store(self, bodies: Sequence[bytes]) -> None:
        if bodies:
            ids = deliver(self._url, bodies)
            self._arrived.update(zip(ids, bodies, strict=True))
            self._messages.append((ids, []))

    def _forget(self, _turn: Turn) -> None:
        """Redis loses everything."""
        self._messages.clear()

    def _work(self, turn: Turn) -> None:
        """A worker takes a message, which stays: it may be delivered again."""
        if turn.choice % 2:
            self._arrive(turn)
        else:
            self._make_due()
            self._sweep(None)
        if self._messages:
            deliveries, jobs = self._messages[-1 - turn.choice // 4 % len(self._messages)]
            self._process(deliveries, jobs, turn)

    def _process(
        self, deliveries: Sequence[UUID], jobs: Sequence[int], turn: Turn | None, depth: int = 0
    ) -> None:
        def meanwhile() -> None:
            assert turn is not None
            self._end_leases(None)
            self._make_due()
            other = dataclasses.replace(turn, fault=turn.other)
            self._process(deliveries, self._ids("SELECT id FROM jobs"), other, depth + 1)

        with self._mortals[depth].life(turn.fault if turn else None, meanwhile) as mortal:
            process = Process(mortal, self._url, self._folder, self._declarations)
            try:
                process.process(deliveries, jobs)
            finally:
                if not mortal.is_dead:
                    process.close()
        self.has_struck |= mortal.has_struck

    def _sweep(self, turn: Turn | None) -> None:
        sent = Unconfirmed(turn.publish if turn else None)

        def sweep(mortal: Mortal) -> None:
            with suppress(DispatchFailed):  # the next one may work
                Relay(mortal.engine, sent, self._options).sweep()

        self._by_another(turn, sweep)
        self.has_struck |= sent.has_failed
        self._messages += [(deliveries, jobs) for _, deliveries, jobs in sent.messages]

    def _end_leases(self, turn: Turn | None) -> None:
        execute(
            self._engine,
            "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL",
        )
        self._by_another(
            turn,
            lambda mortal: rescue.recover_expired(
                mortal.engine, AT_ONCE, limit=100, random=lambda low, _high: low
            ),
        )

    def _find_wrecks(self, turn: Turn | None) -> None:
        self._by_another(
            turn,
            lambda mortal: rescue.recover_crashed(
                mortal.engine, self._folder, AT_ONCE, random=lambda low, _high: low
            ),
        )

    def _replay(self, turn: Turn) -> None:
        """An operator replays an event, what is dead, what has succeeded, or one processor."""
        before = self._succeeded()
        ids = [row["id"] for row in rows(self._engine, "SELECT id FROM events ORDER BY id")]
        selections = [
            EventFilter(ids=(ids[turn.choice % len(ids)],)) if ids else EventFilter(),
            EventFilter(ids=tuple(ids)),
            EventFilter(state="dead"),
            EventFilter(state="succeeded", processor=stored.TALLY),
        ]
        selection = selections[turn.choice % len(selections)]
        self._by_another(
            turn,
            lambda mortal: list(
                replay.run(mortal.engine, selection, requested_by="sara", reason=None, rate=None)
            ),
        )
        self._replayed.update(before - self._succeeded())

    def _bulk(self, turn: Turn) -> None:
        """The console's runner takes up replays that an operator began."""
        ids = [row["id"] for row in rows(self._engine, "SELECT id FROM events ORDER BY id")]
        for selection in (EventFilter(ids=tuple(ids)), EventFilter(state="dead")):
            with self._engine.begin() as connection:
                replay.begin(
                    connection, selection, requested_by="sara", reason=None, background=True
                )
        self._run_bulk(turn)

    def _take_back(self, turn: Turn) -> None:
        """The runner takes back what it has requeued: an operator has cancelled it."""
        self._bulk(dataclasses.replace(turn, fault=None))
        begun = rows(self._engine, "SELECT id FROM replays WHERE background ORDER BY id")
        with self._engine.begin() as connection:
            assert [
                changes.change_status(connection, row["id"], changes.CANCELLED) for row in begun
            ].count(True)
        self._run_bulk(turn)

    def _run_bulk(self, turn: Turn | None) -> bool:
        before, has_more = self._succeeded(), [False]
        self._by_another(
            turn, lambda mortal: has_more.append(BulkRunner(mortal.engine).run_batches())
        )
        after = self._succeeded()
        self._replayed.update(before - after)
        self._replayed.subtract(after - before)
        return any(has_more)

    def _by_another(self, turn: Turn | None, act: Callable[[Mortal], object]) -> None:
        """Let a process that is no worker act; while it stalls, another does the same."""
        mortal = self._mortals[-1]

        def meanwhile() -> None:
            with self._mortals[0].life(None) as other:
                act(other)

        with mortal.life(turn.fault if turn else None, meanwhile):
            act(mortal)
        self.has_struck |= mortal.has_struck

    def _settle(self) -> None:
        self._store(self._arriving)
        self._find_wrecks(None)
        self._until_the_runner_rests()
        for _ in range(ROUNDS):
            self._end_leases(None)
            self._make_due()
            self._messages.clear()
            self._sweep(None)
            if not self._messages:
                return
            for deliveries, jobs in self._messages:
                self._process(deliveries, jobs, None)
        raise AssertionError(f"unfinished after {ROUNDS} rounds without a fault")

    def _until_the_runner_rests(self) -> None:
        for _ in range(ROUNDS):
            if not self._run_bulk(None):
                return
        raise AssertionError(f"bulk actions run on after {ROUNDS} rounds without a fault")

    def _make_due(self) -> None:
        execute(
            self._engine,
            "UPDATE jobs SET next_attempt_at = now(), hinted_until = NULL"
            " WHERE next_attempt_at IS NOT NULL",
        )
        execute(self._engine, "UPDATE unadmitted SET hint_at = now()")

    def _succeeded(self) -> set[int]:
        return set(self._ids("SELECT id FROM jobs WHERE state = 'succeeded'"))

    def _ids(self, sql: str) -> list[int]:
        return [row["id"] for row in rows(self._engine, f"{sql} ORDER BY id")]


@contextmanager
def playing(engine: Engine, database_url: str, folder: Path) -> Iterator[Pipeline]:
    """A pipeline on an empty database, whose processes end with this."""
    execute(engine, "CREATE TABLE effects (event uuid, attempt int)")
    mortals = [Mortal(database_url) for _ in range(3)]
    yield Pipeline(database_url, engine, folder, mortals)
    for mortal in mortals:
        mortal.close()
