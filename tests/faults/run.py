"""One run: each fault alone under load, then a random schedule of them; a row for each."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import psycopg
import redis

from tests.faults import audit, limit, order
from tests.faults import load as loads
from tests.faults.audit import Verdict
from tests.faults.batches import BatchSender
from tests.faults.batches import problems as entries_wrong
from tests.faults.catalogue import Fault
from tests.faults.load import Load
from tests.faults.strike import NotStruck
from tests.faults.world import World
from tests.model import histories
from tests.model.histories import History
from tests.support.fleet import NotInTime

_RECOVERS_WITHIN_S = 600.0
"""A loaded machine took two minutes over what usually takes ten seconds."""
_TRIES = 3
"""So often a fault is tried that could not be made, since one before was not got over."""
_LOOKS_EVERY_S = 0.25
"""A look takes CPU from what it looks at: in one run every 0.05 s, with all that had waited, 0.4 of
a core."""
_UNFINISHED = "state IN ('pending', 'running', 'retrying')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one fault came to."""

    name: str
    strikes: int
    bound: str
    verdict: Verdict
    answers: dict[str, int]
    batched: int
    """The events that came in batches and were acknowledged, beside those of the verdict."""
    in_order: int
    """Neighbours in a line of one key, of all rows so far, whose order was looked at."""
    histories: int
    """Kinds of history of a job in all rows so far, which were replayed against the model."""
    silence_s: float
    """The longest time without an acknowledgement."""
    recovery_s: float | None
    """From the end of the fault until all that waited then was done, at worst."""
    drained_s: float
    """From the last request until all was worked on."""
    problems: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict.is_clean and not self.problems


class Runner:
    """Runs faults on one world."""

    def __init__(
        self, world: World, *, rate: float, random: Random, say: Callable[[str], None]
    ) -> None:
        """`rate` is the shop's events a second; `say` tells a person how it goes."""
        self._world = world
        self.rate = rate
        """The shop's events a second."""
        self._random = random
        self._say = say
        self._phases = itertools.count()
        self._journal = world.home / "journal.jsonl"
        self._has_struck = False
        self._impossible: set[History] = set()
        """Histories that are in a row already, so that no later one is blamed for them."""

    def alone(self, fault: Fault, *, repeats: int) -> Row:
        """One fault, several times, at random moments of a steady load."""
        recoveries: list[float] = []

        def strikes() -> Iterator[Fault]:
            for _ in range(repeats * _TRIES):
                if len(recoveries) < repeats:
                    self._has_struck = False
                    yield fault
                    self._say("  recovering")
                    took_s = self._recover()
                    if self._has_struck:
                        recoveries.append(took_s)

        row = self._run(fault.name, fault.bound, strikes(), recoveries)
        journal = loads.read(self._journal)
        problems = [*row.problems, *fault.check(self._world, journal)]
        if row.strikes < repeats and not row.problems:
            problems.append(f"it was broken {row.strikes} times of {repeats}")
        return replace(row, problems=tuple(problems))

    def schedule(self, faults: Sequence[Fault], *, duration_s: float) -> Row:
        """Faults at random, the next before the one before is got over."""
        ends = time.monotonic() + duration_s

        def strikes() -> Iterator[Fault]:
            while time.monotonic() < ends:
                yield self._random.choice(faults)

        return self._run("all of them, at random", "-", strikes(), [])

    def _run(self, name: str, bound: str, strikes: Iterable[Fault], recoveries: list[float]) -> Row:
        world, struck, drained_s = self._world, 0, 0.0
        problems: list[str] = []
        phase = next(self._phases)
        self._journal = world.home / f"journal-{phase}.jsonl"
        load = Load(
            world, rate=self.rate, seed=self._random.randrange(10**6), journal=self._journal
        )
        batches = BatchSender(world, first=phase * 10**6, random=Random(self._random.random()))
        batches.start()
        try:
            world.fleet.wait(1)
            for fault in strikes:
                world.fleet.wait(self._random.uniform(0.3, 2))
                self._say(fault.name)
                try:
                    fault.strike(world, self._random)
                    self._has_struck = True
                    struck += 1
                except (psycopg.OperationalError, redis.ConnectionError, NotStruck) as error:
                    self._say(f"  not yet: {error}")
            self._say("  the sender is told to stop")
            batches.stop()
            journal = load.stop()
            self._say("  until all is worked on")
            drained_s = world.fleet.until(
                lambda: is_idle(world),
                what="all is worked on",
                timeout_s=_RECOVERS_WITHIN_S,
                every_s=0.2,
            )
        except NotInTime as error:
            problems.append(str(error))
            journal = load.read()
        finally:
            load.kill()
            batches.stop()
        problems += entries_wrong(world.engine, batches.acknowledged)
        lines = order.check(world.engine)
        went_through = histories.check(world.engine)
        new = went_through.impossible.keys() - self._impossible
        self._impossible |= new
        problems += [*lines.problems, *limit.problems(world.engine)]
        problems += [went_through.impossible[history] for history in new]
        return Row(
            name=name,
            strikes=struck,
            bound=bound,
            verdict=audit.check(world.engine, journal, world.outside),
            answers=dict(journal.answers),
            batched=len(batches.acknowledged),
            in_order=lines.pairs,
            histories=went_through.kinds,
            silence_s=journal.longest_silence_s,
            recovery_s=max(recoveries, default=None),
            drained_s=drained_s,
            problems=tuple(problems),
        )

    def _recover(self) -> float:
        """Seconds from now until everything that waits now is done."""
        began = time.monotonic()
        waiting: list[list[Any]] = []

        def know_what_waits() -> bool:
            waiting.extend(self._waiting() or [])
            return bool(waiting)

        self._world.fleet.until(know_what_waits, what="PostgreSQL answers", timeout_s=60)
        self._world.fleet.until(
            lambda: self._is_done(waiting),
            what="what waited is worked on",
            timeout_s=_RECOVERS_WITHIN_S,
            every_s=_LOOKS_EVERY_S,
        )
        return time.monotonic() - began

    def _waiting(self) -> list[list[Any]] | None:
        """Deliveries to be admitted and unfinished jobs, or None when PostgreSQL is away."""
        try:
            with self._world.connect() as connection:
                return [
                    [row[0] for row in connection.execute(query.encode()).fetchall()]
                    for query in (
                        "SELECT delivery FROM unadmitted",
                        f"SELECT id FROM jobs WHERE {_UNFINISHED} AND processor <> 'poison'",
                    )
                ]
        except psycopg.Error:
            return None

    def _is_done(self, waiting: list[list[Any]]) -> bool:
        """Return whether nothing of `waiting` is left, deliveries and jobs; take out what is done,
        so that the next look costs less."""
        deliveries, jobs = waiting
        try:
            with self._world.connect() as connection:
                row = connection.execute(
                    f"""
                    SELECT ARRAY(
                        SELECT d FROM unnest(CAST(%(deliveries)s AS uuid[])) AS d
                        WHERE EXISTS (SELECT FROM unadmitted WHERE delivery = d)
                           OR EXISTS (SELECT FROM jobs WHERE event = d AND {_UNFINISHED}
                                      AND processor <> 'poison')
                    ), ARRAY(
                        SELECT id FROM jobs WHERE id = ANY(%(jobs)s) AND {_UNFINISHED}
                    )
                    """.encode(),
                    {"deliveries": deliveries, "jobs": jobs},
                ).fetchone()
        except psycopg.Error:
            return False
        assert row is not None
        waiting[:] = [list(row[0]), list(row[1])]
        return not row[0] and not row[1]


def is_idle(world: World) -> bool:
    """Return whether everything that was received has been worked on."""
    try:
        with world.connect() as connection:
            row = connection.execute(
                f"SELECT (SELECT count(*) FROM unadmitted)"
                f" + (SELECT count(*) FROM jobs WHERE {_UNFINISHED})".encode()
            ).fetchone()
    except psycopg.Error:
        return False
    return row is not None and row[0] == 0
