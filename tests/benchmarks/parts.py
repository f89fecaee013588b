"""The parts of the benchmark: which subjects, in which order, with which numbers."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests.benchmarks import console as consoles
from tests.benchmarks import cores as quotas
from tests.benchmarks import endurance as enduring
from tests.benchmarks import gaps as holes
from tests.benchmarks import idle as idling
from tests.benchmarks import lag as lags
from tests.benchmarks import limits as limiting
from tests.benchmarks import month, quota, single_rows
from tests.benchmarks import order as orders
from tests.benchmarks import parked as parking
from tests.benchmarks import plans as planned
from tests.benchmarks import price as prices
from tests.benchmarks import retention as removal
from tests.benchmarks import stored as stores
from tests.benchmarks import sustained as steady
from tests.benchmarks.answers import Answers, Target
from tests.benchmarks.ceiling import Ceiling
from tests.benchmarks.drain import drain as drain_once
from tests.benchmarks.ours import Ours
from tests.benchmarks.peers.dramatiq_ import Dramatiq
from tests.benchmarks.peers.pgqueuer_ import PgQueuer
from tests.benchmarks.peers.procrastinate_ import Procrastinate
from tests.benchmarks.plain_asgi import PlainAsgi
from tests.benchmarks.subject import Drained, Receiving, Working
from tests.benchmarks.textbook.subject import Textbook
from tests.benchmarks.verify_only import VerifyOnly
from tests.benchmarks.world import World

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    answer_s: float
    """Seconds of one saturated run."""
    latency_s: float
    drain: int
    """Events of a drain; a tenth for subjects that are that much slower."""
    steady_s: float
    confirm_s: float
    endurance_s: float
    stored: int
    parked: int
    """Jobs that no worker can take."""
    ordered: int
    """Jobs of a processor with an order, or with limits; a tenth as many keys."""
    dead: int
    """Rows that vacuum may not remove, while statements are measured."""
    rounds: int = 2
    page_runs: int = 7
    """How often each page is asked for, once its caches are full."""
    cold: bool = True
    """Whether pages are also asked for with all caches empty, a second each."""
    home: Path | None = None
    """Where to keep what is stored for the console's pages, and use it again; None: nowhere."""


FULL = Size(
    answer_s=6,
    latency_s=15,
    drain=100_000,
    steady_s=20,
    confirm_s=120,
    endurance_s=600,
    stored=10_000_000,
    parked=120_000,
    ordered=1_000_000,
    dead=150_000,
)
SHORT = Size(
    answer_s=0.5,
    latency_s=1,
    drain=2_000,
    steady_s=2,
    confirm_s=2,
    endurance_s=4,
    stored=20_000,
    parked=2_000,
    ordered=20_000,
    dead=10_000,
    rounds=1,
    page_runs=1,
    cold=False,
)

_CONNECTIONS = (16, 64, 256)
_BODIES = (2_000, 8_000, 64_000)
_OFFERED = (200, 1_000, 3_000)
_ENDURED = 0.3
"""Of the rate of *verify only*: what is to be held for minutes, from the request to the effect."""
_PARKED_RATE = 5
"""Events a second of a live processor, while others' jobs are parked."""
_BESIDE_RETENTION = 300
"""Events a second that come in while others are removed."""
_MOST_A_SECOND = 12_000
"""Requests that are signed for a second of a saturated run; none answers more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """One drain by one subject."""

    subject: str
    workers: int
    drained: Drained
    cpu_us: dict[str, float]
    """CPU time per event by kind of process, microseconds; starting the processes included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One figure with nothing stored before, and with a great many events."""

    what: str
    before: float
    after: float
    events: int


def _rounds(subjects: Sequence[Subject], size: Size) -> Iterator[Subject]:
    """Every subject in turn, then again in the opposite order."""
    for number in range(size.rounds):
        yield from reversed(subjects) if number % 2 else subjects


def answers(size: Size) -> Iterator[Answers]:
    """Durable answers at saturation."""
    subjects: list[Receiving] = [VerifyOnly(), Ceiling(), Ours(), PlainAsgi(), Textbook()]
    for subject in _rounds(subjects, size):
        most = 500 if isinstance(subject, Textbook) else _MOST_A_SECOND
        with World() as world:
            target = Target(world, subject)
            for connections in _CONNECTIONS:
                yield target.ask(
                    count=int(most * size.answer_s),
                    connections=connections,
                    seconds=size.answer_s,
                )
            for body_bytes in _BODIES:
                yield target.ask(
                    count=int(most * size.answer_s * (0.1 if body_bytes > 10_000 else 0.5)),
                    connections=64,
                    seconds=size.answer_s,
                    body_bytes=body_bytes,
                )


def latency(size: Size) -> Iterator[Answers]:
    """How soon the answer comes at rates below saturation."""
    subjects: list[Receiving] = [Ours(), Textbook()]
    for subject in _rounds(subjects, size):
        with World() as world:
            target = Target(world, subject)
            for rate in _OFFERED:
                if rate == _OFFERED[0] or isinstance(subject, Ours):
                    yield target.ask(count=int(rate * size.latency_s), connections=64, rate=rate)


def pgbench(size: Size) -> Iterator[removal.Figure]:
    """Durable answers beside `pgbench` inserting single rows over as many connections, by turns."""
    for _ in range(size.rounds):
        with World() as world:
            rows = single_rows.rate(world, connections=64, seconds=size.answer_s)
        yield removal.Figure(what="pgbench, 64 connections", value=rows, unit="rows/s")
        with World() as world:
            answered = _rate(world, Ours(), size)
        yield removal.Figure(what="ours, 64 connections", value=answered, unit="answers/s")
        yield removal.Figure(what="ours is of pgbench", value=answered / rows, unit="")


def drain(size: Size) -> Iterator[Drain]:
    """How fast waiting events are worked on by one worker of two processes."""
    subjects: list[Working] = [Ours(), Dramatiq(), PgQueuer(), Procrastinate(), Textbook()]
    for subject in _rounds(subjects, size):
        slower = {Ours: 1, PgQueuer: 5, Dramatiq: 10}.get(type(subject), 20)
        yield _drain(subject, max(1_000, size.drain // slower))


def own(size: Size) -> Iterator[Drain]:
    """Processors of a user's own: a row an event; the same after 20 ms of waiting, on threads and
    on an event loop; and the waiting alone."""
    for name, count in (
        ("simple", size.drain // 4),
        ("naps", size.drain // 10),
        ("async_naps", size.drain // 10),
        ("async_waits", size.drain // 2),
    ):
        for _ in range(size.rounds):
            subject = Ours(processors=f"tests.benchmarks.own.{name}", read_model="false")
            subject.name = f"ours, {name}"
            yield _drain(subject, count)


def _drain(subject: Working, count: int, *, workers: int = 1) -> Drain:
    with World() as world:
        drained = drain_once(world, subject, count, workers=workers)
        spent = world.cpu_s()
    return Drain(
        subject=subject.name,
        workers=workers,
        drained=drained,
        cpu_us={kind: seconds / count * 1e6 for kind, seconds in spent.items()},
    )


def lag(size: Size) -> Iterator[lags.Lag]:
    """From the request to the effect, at low load."""
    for _ in range(size.rounds):
        with World() as world:
            yield lags.measure(world, Ours(), rate=50, seconds=size.latency_s)


def sustained(size: Size) -> Iterator[steady.Lease]:
    """The highest rate at which no effect falls a second behind, both sides and the client on."""
    with World() as world:
        line = steady.Line(world, Ours())
        line.offer(500, size.steady_s)
        line.settle()
        yield steady.highest(
            line, first=1_000, step=250, seconds=size.steady_s, confirm_s=size.confirm_s
        )


def endurance(size: Size) -> Iterator[enduring.Endurance]:
    """0.3 of the rate of *verify only*, and a third and two thirds of that, for two minutes each;
    then ten minutes of it, with room for the log."""
    with World() as world:
        verify_only = _rate(world, VerifyOnly(), size)
    short = tuple((share, size.confirm_s) for share in (1 / 3, 2 / 3, 1.0))
    for settings, runs in (((), short), (enduring.ROOM, ((1.0, size.endurance_s),))):
        with World(settings=(*enduring.SETTINGS, *settings)) as world:
            yield from enduring.measure(
                world,
                Ours(),
                settings=settings,
                verify_only=verify_only,
                rate=_ENDURED * verify_only,
                runs=runs,
            )


def price(size: Size) -> Iterator[prices.Price]:
    """What an event costs under load."""
    with World(settings=prices.SETTINGS) as world:
        yield prices.measure(world, Ours(), max(2_000, size.drain // 4))


def idle(size: Size) -> Iterator[idling.Idle]:
    """What a pipeline costs that has nothing to do."""
    yield from idling.measure(settle_s=size.steady_s, seconds=size.confirm_s)


def plans(size: Size) -> Iterator[planned.Cost]:
    """What an event costs PostgreSQL, whenever statistics were taken."""
    with World(settings=planned.SETTINGS) as world:
        Ours().prepare(world)
        yield from planned.costs(world, rounds=20 * size.rounds, dead=size.dead, many=size.stored)


def parked(size: Size) -> Iterator[stores.Timed]:
    """What a great many jobs cost that no worker can take."""
    with World() as world:
        Ours().prepare(world)
        yield from parking.sweeps(world, size.parked)
    with World() as world:
        yield from parking.meanwhile(world, size.parked, rate=_PARKED_RATE)


def order(size: Size) -> Iterator[stores.Timed]:
    """What order per key costs."""
    with World() as world:
        Ours().prepare(world)
        yield from orders.costs(world, size.ordered, rounds=100 if size.ordered > 100_000 else 5)


def limits(size: Size) -> Iterator[stores.Timed]:
    """What limits of a processor and of its keys cost."""
    with World() as world:
        Ours().prepare(world)
        yield from limiting.costs(world, size.ordered, rounds=100 if size.ordered > 100_000 else 5)


def gaps(_size: Size) -> Iterator[holes.Gap]:
    """How long one body holds up everybody else."""
    with World() as world:
        yield from holes.measure(world, Ours())


def cores(size: Size) -> Iterator[removal.Figure]:
    """The same work with quotas of CPU time; needs root and control groups."""
    if not quota.is_possible():
        sys.stderr.write("cores: left out, needs root and control groups (/sys/fs/cgroup).\n")
        return
    yield from quotas.measure(seconds=size.answer_s, count=size.drain)


def scaling(size: Size) -> Iterator[Drain | Answers]:
    """More workers, more receivers; the CPU that they find explains what that gives."""
    for workers in (1, 2, 4):
        yield _drain(Ours(), size.drain // 2, workers=workers)
    for receivers in (1, 2):
        with World() as world:
            target = Target(world, Ours(), receivers=receivers)
            yield target.ask(
                count=int(_MOST_A_SECOND * size.answer_s), connections=64, seconds=size.answer_s
            )


def stored(size: Size) -> Iterator[Stored | stores.Timed]:
    """The same with a great many events stored before."""
    with World() as world:
        before = _rates(world, Ours(), size)
    with World() as world:
        ours = Ours()
        ours.prepare(world)
        stores.seed(world, size.stored)
        yield from stores.reads(world)
        after = _rates(world, ours, size)
    for what, rate in before.items():
        yield Stored(what=what, before=rate, after=after[what], events=size.stored)


def console(size: Size) -> Iterator[consoles.Waited]:
    """Every page and search of the console with a month of events behind it."""
    with (
        TemporaryDirectory(prefix="ingest-month-") as folder,
        month.kept(size.home or Path(folder), size.stored) as world,
    ):
        yield from consoles.pages(world, cold=size.cold, runs=size.page_runs)


def retention(size: Size) -> Iterator[removal.Figure]:
    """Half of many events removed while others come in, and what the memory of them costs."""
    with World() as world:
        yield from removal.measure(
            world, events=size.stored, rate=_BESIDE_RETENTION, seconds=size.steady_s
        )
    with World(settings=planned.SETTINGS) as world:
        yield from removal.admission(world, remembered=size.stored)


def _rate(world: World, subject: Receiving, size: Size) -> float:
    """Answers a second of 64 connections."""
    asked = Target(world, subject).ask(
        count=int(_MOST_A_SECOND * size.answer_s), connections=64, seconds=size.answer_s
    )
    return asked.result.rate


def _rates(world: World, ours: Ours, size: Size) -> dict[str, float]:
    answered = _rate(world, ours, size)
    ours.start_workers(world)  # for the hints of these requests, which wait in Redis
    world.fleet.until(lambda: ours.is_done(world), what="all is done", timeout_s=300, every_s=0.2)
    world.stop("worker", "relay", "receiver")
    began = world.value("SELECT extract(epoch FROM clock_timestamp())")
    ours.fill(world, max(1_000, size.drain // 2), first=10**9)
    ours.start_workers(world)
    world.fleet.until(lambda: ours.is_done(world), what="all is done", timeout_s=300, every_s=0.5)
    return {"answers/s": answered, "drained/s": ours.drained(world, since=began).rate}
