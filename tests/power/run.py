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
from tests.faults import audit
from tests.faults.load import Load
from tests.faults.run import is_idle
from tests.power.journal import Acknowledged, JournalReader
from tests.power.world import DoesNotStart, PowerWorld
from tests.support.fleet import NotInTime

_IS_KEPT = """
    SELECT count(*) FROM unnest(CAST(%(digests)s AS text[])) AS told (digest)
    WHERE digest NOT IN (
        SELECT encode(sha256(body), 'hex') FROM ingest.deliveries WHERE id >= %(since)s
    )
"""
_MARGIN_S = 120.0
"""A delivery's id was made before it was answered, by so much at most."""
_WORKED_ON_WITHIN_S = 1_200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is run while the power is cut."""

    name: str
    cuts: int
    """So many; with a control, until something is lost."""
    control: str | None = None
    """Which promise is broken on purpose (tests.power.controls); None: none."""
    settings: tuple[str, ...] = ()
    """Further settings of PostgreSQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What some cuts came to."""

    name: str
    must_lose: bool
    cuts: int
    answered: int
    """Bodies that were answered 200."""
    rate: float
    """Of those, a second between the first and the last before a cut."""
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
        """Return whether nothing was lost; of a control: whether something was."""
        if self.must_lose:
            return self.missing > 0 or bool(self.problems)
        return not self.missing and not self.problems


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
            sender = Load(world, rate=self._rate, seed=seed, journal=journal)
            try:
                return self._cut(world, sender, journal, subject)
            finally:
                sender.kill()
        finally:
            world.close()

    def _cut(self, world: PowerWorld, sender: Load, journal: Path, subject: Subject) -> Row:
        must_lose, name = subject.control is not None, subject.name
        reader = JournalReader(journal)
        answered, missing, sectors, names = 0, 0, 0, 0
        first_loss: int | None = None
        answering_s, recovery_s = 0.0, 0.0
        problems: list[str] = []
        cuts = 0
        while cuts < subject.cuts:
            world.fleet.wait(self._random.uniform(0.5, 3))
            self._disturb(world)
            lost = world.cut_power()
            cuts += 1
            sectors += lost.sectors
            names += lost.names
            told: list[Acknowledged] = []
            try:
                recovery_s = max(recovery_s, world.boot_database())
                told = reader.read_on()
                gone = _missing(world, told)
            except (DoesNotStart, psycopg.Error) as error:
                problems.append(f"after cut {cuts} PostgreSQL was beyond repair: {error}")
                told += reader.read_on()
                gone = len(told)
            answered += len(told)
            answering_s += _lasted_s(told)
            missing += gone
            if gone and first_loss is None:
                first_loss = cuts
            self._say(
                f"{name}: cut {cuts}, {lost.sectors} sectors and {lost.names} names lost,"
                f" {len(told)} answered, {gone} missing"
            )
            if problems or (must_lose and missing):
                break
            world.boot_others()
        if not must_lose and not problems:
            problems += _wrong_at_the_end(world, sender)
        return Row(
            name=name,
            must_lose=must_lose,
            cuts=cuts,
            answered=answered,
            rate=answered / answering_s if answering_s else 0.0,
            missing=missing,
            first_loss=first_loss,
            sectors=sectors,
            names=names,
            recovery_s=recovery_s,
            problems=tuple(problems),
        )

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


def _lasted_s(told: Sequence[Acknowledged]) -> float:
    """Return the seconds between the first answer and the last."""
    times = [one.at for one in told]
    return max(times) - min(times) if times else 0.0


def _missing(world: PowerWorld, told: Sequence[Acknowledged]) -> int:
    """Return how many of the bodies that were answered 200 are not in the database."""
    if not told:
        return 0
    first = min(one.at for one in told) - _MARGIN_S
    since = first_id(datetime.fromtimestamp(first, UTC))
    with world.connect() as connection:
        row = connection.execute(
            _IS_KEPT.encode(), {"digests": [one.digest for one in told], "since": since}
        ).fetchone()
    assert row is not None
    return int(row[0])


def _wrong_at_the_end(world: PowerWorld, sender: Load) -> list[str]:
    """Let everything be worked on; return what differs from what must have come of it."""
    try:
        told = sender.stop()
        world.fleet.until(
            lambda: is_idle(world),
            what="all is worked on",
            timeout_s=_WORKED_ON_WITHIN_S,
            every_s=0.2,
        )
    except NotInTime as error:
        return [str(error)]
    verdict = audit.check(world.engine, told, world.outside)
    return [] if verdict.is_clean else [f"at the end: {verdict}"]
