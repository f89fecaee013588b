"""Cuts, one after another, under load; after each the journal is held against the database."""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import psycopg

from ingest.ids import first_id
from ingest.local.errors import EmbeddedError
from tests.faults import audit
from tests.faults.load import Load
from tests.faults.run import is_idle
from tests.power.controls import NO_SYNC
from tests.power.disk import Lost
from tests.power.journal import Acknowledged, JournalReader
from tests.power.world import DoesNotStart, PowerWorld
from tests.support.fleet import NotInTime

# A join: `NOT IN` compared each with each where statistics were old, for two minutes.
_MISSING = """
    SELECT count(*) FROM unnest(CAST(%(digests)s AS text[])) AS told (digest)
    WHERE NOT EXISTS (
        SELECT FROM ingest.deliveries
        WHERE id >= %(since)s AND encode(sha256(body), 'hex') = told.digest
    )
"""
_MARGIN_S = 120.0
"""A delivery's id was made before it was answered, by so much at most."""
_WORKED_ON_WITHIN_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is run while the power is cut."""

    name: str
    cuts: int
    """At most; a control ends when something is lost."""
    control: str | None = None
    """Which promise is broken on purpose (tests.power.controls); None: none."""
    settings: tuple[str, ...] = ()
    """Further settings of PostgreSQL."""
    sync_s: float = 0.0
    """Seconds that each sync of the disk takes, beside its own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What some cuts came to."""

    name: str
    control: str | None
    cuts: int
    answered: int
    """Bodies that were answered 200."""
    rate: float
    """Answers a second, between the first and the last answer before each cut."""
    missing: int
    """Of those, which are not there."""
    first_loss: int | None
    """The number of the first cut after which one was missing."""
    sectors: int
    names: int
    """What the disk lost, over all cuts."""
    recovery_s: float
    """The longest that PostgreSQL took to answer again."""
    problems: tuple[str, ...] = ()

    @property
    def is_as_it_must_be(self) -> bool:
        """Return whether nothing was lost; of a control: whether something was, and PostgreSQL
        came back. Without `fsync` it need not."""
        if self.control is None:
            return self.answered > 0 and not self.missing and not self.problems
        return self.missing > 0 and (not self.problems or self.control == NO_SYNC)


class Cuts:
    """Runs cuts on a world of their own."""

    def __init__(self, home: Path, *, rate: float, random: Random, say: Callable[[str], None]):
        """`rate` is the sender's events a second; `say` tells a person how it goes."""
        self._home = home
        self._rate = rate
        self._random = random
        self._say = say

    def run(self, subject: Subject) -> Row:
        """Cut the power of a world of its own, which ends with this."""
        home = Path(tempfile.mkdtemp(dir=self._home))
        home.chmod(0o755)
        world = PowerWorld(
            home,
            seed=self._random.randrange(10**6),
            control=subject.control,
            settings=subject.settings,
        )
        journal = home / "journal.jsonl"
        seed = self._random.randrange(10**6)
        try:
            world.slow_down(subject.sync_s)
            sender = Load(world, rate=self._rate, seed=seed, journal=journal)
            try:
                return self._cut(world, sender, journal, subject)
            finally:
                sender.kill()
        finally:
            world.close()

    def _cut(self, world: PowerWorld, sender: Load, journal: Path, subject: Subject) -> Row:
        run = _Run(subject, JournalReader(journal))
        try:
            while run.goes_on():
                self._wait_for_load(world, run)
                self._disturb(world)
                run.count(world.cut_power())
                run.recovery_s = max(run.recovery_s, world.boot_database())
                gone = run.check(world)
                self._say(
                    f"{subject.name}: cut {run.cuts}, {run.answered:,} answered so far,"
                    f" {gone} missing"
                )
                if run.goes_on() or subject.control is None:
                    world.boot_others()
            if subject.control is None:
                run.problems += _wrong_at_the_end(world, sender, journal)
        except (DoesNotStart, EmbeddedError, NotInTime, psycopg.Error) as error:
            run.problems.append(f"after cut {run.cuts}: {error}")
            run.all_is_gone()
        return run.row()

    def _wait_for_load(self, world: PowerWorld, run: "_Run") -> None:
        """Wait until something was answered since the last cut, and for a moment longer."""
        world.fleet.until(run.read_on, what="something is answered 200", timeout_s=300)
        world.fleet.wait(self._random.uniform(0.5, 3))

    def _disturb(self, world: PowerWorld) -> None:
        """Have pages written, in two cases of three, for a moment: the cut comes in the midst."""
        statement = self._random.choice(
            ("CHECKPOINT", "VACUUM ingest.jobs; CHECKPOINT", "SELECT true")
        )

        def execute() -> None:
            with contextlib.suppress(psycopg.Error), world.connect() as connection:
                for one in statement.split("; "):
                    connection.execute(one.encode())

        threading.Thread(target=execute, daemon=True).start()
        world.fleet.wait(self._random.uniform(0, 0.4))


class _Run:
    """What the cuts of a subject have come to so far."""

    def __init__(self, subject: Subject, reader: JournalReader) -> None:
        self._subject = subject
        self._reader = reader
        self._told: list[Acknowledged] = []
        """What was answered since the last check."""
        self._answering_s = 0.0
        self._first_loss: int | None = None
        self._sectors = self._names = 0
        self.cuts = self.answered = self._missing = 0
        self.recovery_s = 0.0
        self.problems: list[str] = []

    def goes_on(self) -> bool:
        """Whether there is a further cut."""
        has_lost = self._subject.control is not None and self._missing > 0
        return self.cuts < self._subject.cuts and not has_lost

    def read_on(self) -> bool:
        """Read what was answered meanwhile; return whether anything was since the last check."""
        self._told += self._reader.read_on()
        return bool(self._told)

    def count(self, lost: Lost) -> None:
        """Count a cut, and what the disk lost."""
        self.cuts += 1
        self._sectors += lost.sectors
        self._names += lost.names

    def check(self, world: PowerWorld) -> int:
        """Hold what was answered since the last check against the database; return how many bodies
        are missing."""
        self.read_on()
        return self._settle(_missing(world, self._told))

    def all_is_gone(self) -> None:
        """Count all that was answered since the last check as missing."""
        self.read_on()
        self._settle(len(self._told))

    def _settle(self, gone: int) -> int:
        times = [one.at for one in self._told]
        self._answering_s += max(times) - min(times) if times else 0.0
        self.answered += len(self._told)
        self._missing += gone
        if gone and self._first_loss is None:
            self._first_loss = self.cuts
        self._told.clear()
        return gone

    def row(self) -> Row:
        """Return all of it."""
        return Row(
            name=self._subject.name,
            control=self._subject.control,
            cuts=self.cuts,
            answered=self.answered,
            rate=self.answered / self._answering_s if self._answering_s else 0.0,
            missing=self._missing,
            first_loss=self._first_loss,
            sectors=self._sectors,
            names=self._names,
            recovery_s=self.recovery_s,
            problems=tuple(self.problems),
        )


def _missing(world: PowerWorld, told: Sequence[Acknowledged]) -> int:
    """Return how many of the bodies that were answered 200 are not in the database."""
    if not told:
        return 0
    first = min(one.at for one in told) - _MARGIN_S
    since = first_id(datetime.fromtimestamp(first, UTC))
    with world.connect() as connection:
        row = connection.execute(
            _MISSING.encode(), {"digests": [one.digest for one in told], "since": since}
        ).fetchone()
    assert row is not None
    return int(row[0])


def _wrong_at_the_end(world: PowerWorld, sender: Load, journal: Path) -> list[str]:
    """End the sender, which may have a long backlog, and let everything be worked on; return what
    differs from what must have come of it."""
    sender.kill()
    whole, newline, _ = journal.read_bytes().rpartition(b"\n")
    journal.write_bytes(whole + newline)
    world.fleet.until(
        lambda: is_idle(world),
        what="all is worked on",
        timeout_s=_WORKED_ON_WITHIN_S,
        every_s=0.2,
    )
    verdict = audit.check(world.engine, sender.read(), world.outside)
    return [] if verdict.is_clean else [f"at the end: {verdict}"]
