"""Whatever arrives in whatever order, and whatever dies on the way, the end is the same."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from sqlalchemy import Connection, Engine, text

import workers.processors
from ingest.settings import load
from ingest.store.bulk import replay
from ingest.store.search.filters import EventFilter
from tests.integration.conftest import NoLeases, Sent, Worker
from tests.support import stored
from tests.support.deliver import deliver
from tests.support.effort import examples
from tests.support.fault_injection import BROKEN, Fate, Fault, Mortal
from tests.support.generated_events import TYPES, Happening, retried, shop_days, spell, unruly_days
from tests.support.rows import execute, one, rows
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What arrives, in its order, and what goes on meanwhile."""

    arriving: list[bytes]
    turns: list[Turn]
    moods: list[str]


DOINGS = ["work"] * 7 + ["replay", "arrive", "sweep", "end_leases", "find_wrecks", "forget"]
choices = st.integers(0, 7)


def faults(*fates: Fate, in_effects: SearchStrategy[bool]) -> SearchStrategy[Fault]:
    steps = st.sampled_from(range(16))
    return st.builds(Fault, fate=st.sampled_from(fates), step=steps, in_effects=in_effects)


def turns() -> SearchStrategy[Turn]:
    """Anything may befall anybody; that one dies who has overtaken another is a case of its own."""
    anywhere, in_effects = st.booleans(), st.just(True)
    any_turn = st.builds(
        Turn,
        does=st.sampled_from(DOINGS),
        fault=faults(*Fate, in_effects=anywhere) | st.none(),
        other=faults(Fate.KILLED, in_effects=anywhere) | st.none(),
        choice=choices,
    )
    overtaken = st.builds(
        Turn,
        does=st.just("work"),
        fault=faults(Fate.STALLED, in_effects=in_effects),
        other=faults(Fate.KILLED, in_effects=in_effects),
        choice=choices,
    )
    return any_turn | any_turn | overtaken


@st.composite
def scenarios(draw: DrawFn, days: SearchStrategy[list[Happening]]) -> Scenario:
    """Days of happenings, told once or more often in any order, and a pipeline in trouble."""
    happened = draw(days)
    once = [spell(each) for each in happened]
    again = [spell(each) for each in draw(st.lists(st.sampled_from(happened), max_size=4))]
    retries = [retried(each) for each in draw(st.lists(st.sampled_from(happened), max_size=4))]
    moods = st.sampled_from(["works", "works", "fails", "snoozes"])
    return Scenario(
        arriving=draw(st.permutations(once + again + retries)),
        turns=draw(st.lists(turns(), min_size=4, max_size=10)),
        moods=draw(st.lists(moods, max_size=3)),
    )


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
        for turn in scenario.turns:
            getattr(self, f"_{turn.does}")(turn)
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

    def _sweep(self, turn: Turn | None) -> None:
        sent = Sent()
        with self._other_process(turn) as mortal:
            Relay(mortal.engine, sent, self._options).sweep()
        self._messages += [(deliveries, jobs) for _, deliveries, jobs in sent.messages]

    def _end_leases(self, turn: Turn | None) -> None:
        execute(
            self._engine,
            "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL",
        )
        with self._other_process(turn) as mortal:
            rescue.recover_expired(mortal.engine, AT_ONCE, limit=100, random=lambda low, _high: low)

    def _find_wrecks(self, turn: Turn | None) -> None:
        with self._other_process(turn) as mortal:
            rescue.recover_crashed(
                mortal.engine, self._folder, AT_ONCE, random=lambda low, _high: low
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
        with self._other_process(turn) as mortal:
            list(replay.run(mortal.engine, selection, requested_by="sara", reason=None, rate=None))
        self._replayed.update(before - self._succeeded())

    def _other_process(self, turn: Turn | None) -> AbstractContextManager[Mortal]:
        return self._mortals[-1].life(turn.fault if turn else None)

    def _settle(self) -> None:
        self._store(self._arriving)
        self._find_wrecks(None)
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


@pytest.fixture
def pipeline(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    execute(engine, "CREATE TABLE effects (event uuid, attempt int)")
    mortals = [Mortal(database_url) for _ in range(3)]
    yield Pipeline(database_url, engine, tmp_path, mortals)
    for mortal in mortals:
        mortal.close()


converging = settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@converging
@given(scenario=scenarios(shop_days()))
def test_a_shops_days_end_alike_whatever_order_repeats_and_crashes_there_were(
    pipeline: Pipeline, engine: Engine, scenario: Scenario
) -> None:
    pipeline.run(scenario)
    assert one(engine, "SELECT count(*) FROM duplicates WHERE conflict") == 0
    assert one(engine, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0


@converging
@given(scenario=scenarios(unruly_days))
def test_what_keeps_to_no_protocol_ends_alike_too(pipeline: Pipeline, scenario: Scenario) -> None:
    pipeline.run(scenario)
