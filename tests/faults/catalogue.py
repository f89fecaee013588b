"""The faults: what is broken, and the setting that bounds the recovery."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests.faults import database, deploys, doorbell, network, pressure, processes
from tests.faults.load import Journal
from tests.faults.network import Passing, Server
from tests.faults.overload import Overload
from tests.faults.strike import Strike
from tests.faults.world import LEASE_S, World

_STALL_S = 3.0
"""The default of `flush_timeout_s`, and less than a sender's patience. What takes longer waited for
the machine: a restart makes nobody wait, it closes connections."""
_AFTER_STALL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way of breaking it."""

    name: str
    strike: Strike
    bound: str
    """What bounds the time to recover."""
    repeats: int = 3
    check: Callable[[World, Journal], list[str]] = lambda _world, _journal: []
    """What else must hold at the end; returns what does not."""
    missing: Callable[[World], str | None] = lambda _world: None
    """Why it cannot be tried here."""
    alone: bool = False
    """Not part of a random schedule."""
    in_short: bool = True
    """Part of the short form."""


def all_faults(*, short: bool) -> list[Fault]:
    """Every fault. The short form keeps PostgreSQL away for less, and leaves out most of the
    pressure and of the bad networks: of those it has the ones that make commits ambiguous or
    repeat messages."""
    faults = [
        *_breaks(away_s=8 if short else 30),
        *_pressure(),
        *_crowding(),
        *_partitions(),
        *_lengthy(),
    ]
    return [fault for fault in faults if fault.in_short or not short]


def _pressure() -> Iterator[Fault]:
    """What others do to PostgreSQL, or an operator."""
    dispatch, lease = "REDISPATCH_AFTER_S 10", f"LEASE_S {LEASE_S}, RETRY_BASE_S 5"
    for name, strike, bound in (
        ("an old transaction", pressure.hold_snapshot, "-"),
        ("four long readers", pressure.read_long, "-"),
        ("no connection left", pressure.take_connections, lease),
        ("statements cancelled", pressure.cancel_statements, lease),
        ("commits take 0.1 s", pressure.slow_commits, dispatch),
        ("read-only", pressure.refuse_writes, lease),
        ("checkpoints without end", pressure.checkpoint, "-"),
        ("rows locked", pressure.lock_rows, dispatch),
        ("rows locked backwards", pressure.lock_backwards, lease),
        ("300,000 dead rows", pressure.leave_dead_rows, "-"),
        ("hot tables rewritten", pressure.rewrite_tables, dispatch),
        ("hot tables reindexed", pressure.reindex, dispatch),
        ("all rows frozen", pressure.freeze_rows, "-"),
        ("statistics lost", pressure.forget_statistics, "-"),
        ("its background frozen", pressure.freeze_checkpointer, "-"),
        ("a session: kill -9", pressure.kill_backend, f"its recovery, LEASE_S {LEASE_S}"),
    ):
        yield Fault(
            name=f"PostgreSQL: {name}",
            strike=strike,
            bound=bound,
            repeats=2,
            in_short=strike is pressure.cancel_statements,
        )


def _crowding() -> Iterator[Fault]:
    """What befalls processes and messages beside their end."""
    dispatch = "REDISPATCH_AFTER_S 10"
    for name, strike, bound in (
        ("receiver: frozen", processes.freeze_receiver, "the sender's retry"),
        ("receiver: no file left", processes.use_up_files, "the sender's retry"),
        ("relays: frozen", processes.freeze_relays, dispatch),
        ("relays: away", processes.take_relays_away, dispatch),
        ("workers: away", processes.take_workers_away, "what waited"),
        ("workers' children: frozen", processes.freeze_children, f"LEASE_S {LEASE_S}"),
        ("workers' children: no memory left", processes.use_up_memory, f"LEASE_S {LEASE_S}"),
        ("the cores taken by others", processes.crowd_cores, "-"),
        ("Redis: paused", doorbell.pause, dispatch),
        ("Redis: connections ended", doorbell.end_connections, dispatch),
        ("Redis: messages twice", doorbell.repeat_messages, "what waited"),
        ("Redis: messages lost", doorbell.lose_messages, dispatch),
    ):
        yield Fault(
            name=name,
            strike=strike,
            bound=bound,
            repeats=2,
            in_short=strike is doorbell.repeat_messages,
        )


def _lengthy() -> Iterator[Fault]:
    """What takes a minute or more, or leaves the server another one; once each, in no schedule."""
    overload = Overload()
    yield Fault(
        name="more events than can be worked on",
        strike=overload.strike,
        bound="what waited",
        repeats=1,
        check=overload.check,
        alone=True,
        in_short=False,
    )
    yield Fault(
        name="clocks put forward and back",
        strike=deploys.step_clocks,
        bound="-",
        repeats=1,
        missing=_has_no_faketime,
        alone=True,
        in_short=False,
    )
    yield Fault(
        name="PostgreSQL: ten million dead rows",
        strike=pressure.leave_ten_million_dead_rows,
        bound="-",
        repeats=1,
        alone=True,
        in_short=False,
    )
    yield Fault(
        name="PostgreSQL: transaction ids used up",
        strike=database.near_wraparound,
        bound=f"its restart, LEASE_S {LEASE_S}",
        repeats=1,
        check=lambda world, _journal: database.frozen_again(world),
        alone=True,
        in_short=False,
    )


def _partitions() -> Iterator[Fault]:
    """A bad network between one of two processes and a server."""
    spelled = {
        Passing.NOTHING: "nothing passes",
        Passing.NO_ANSWER: "no answer comes back",
        Passing.LATE: "0.15 s late",
    }
    bound = f"LEASE_S {LEASE_S}, RETRY_BASE_S 5"
    for kind, server, ways in (
        ("receiver", Server.POSTGRES, tuple(spelled)),
        ("worker", Server.POSTGRES, tuple(spelled)),
        ("relay", Server.POSTGRES, (Passing.NOTHING,)),
        ("receiver", Server.REDIS, (Passing.NOTHING,)),
        ("worker", Server.REDIS, (Passing.NOTHING, Passing.NO_ANSWER)),
    ):
        for passing in ways:
            yield Fault(
                name=f"{kind} to {server.product}: {spelled[passing]}",
                strike=network.between(kind, server, passing),
                bound=bound,
                repeats=1,
                alone=True,
                in_short=server is Server.POSTGRES and passing is Passing.NO_ANSWER,
            )
    for kind in ("receiver", "worker"):
        yield Fault(
            name=f"{kind} to PostgreSQL: cut, again and again",
            strike=network.cutting(kind, Server.POSTGRES),
            bound=bound,
            repeats=1,
            alone=True,
            in_short=False,
        )


def _breaks(*, away_s: float) -> list[Fault]:
    """What ends, vanishes or stops."""
    return [
        Fault(name="nothing", strike=_nothing, bound="-", alone=True),
        Fault(
            name="receiver: kill -9",
            strike=processes.kill_receiver,
            bound="restart; the sender's retry",
        ),
        Fault(
            name="worker: kill -9",
            strike=processes.kill_worker,
            bound="restart, REDISPATCH_AFTER_S 10",
        ),
        Fault(
            name="worker's child: kill -9",
            strike=processes.kill_child,
            bound="REDISPATCH_AFTER_S 10",
        ),
        Fault(
            name="worker stalled past its lease",
            strike=processes.stall_worker,
            bound=f"LEASE_S {LEASE_S}, RETRY_BASE_S 5",
            repeats=2,
        ),
        Fault(name="relays: kill -9", strike=processes.kill_relay, bound="restart"),
        Fault(
            name="rolling restart (SIGTERM)",
            strike=processes.restart_all,
            bound="REDISPATCH_AFTER_S 10",
            repeats=2,
            check=_no_request_failed,
        ),
        Fault(
            name="Redis: kill -9, empty after", strike=doorbell.kill, bound="REDISPATCH_AFTER_S 10"
        ),
        Fault(name="Redis: FLUSHALL", strike=doorbell.flush, bound="REDISPATCH_AFTER_S 10"),
        Fault(name="Redis: frozen", strike=doorbell.freeze, bound="REDISPATCH_AFTER_S 10"),
        Fault(
            name="Redis: refuses writes",
            strike=doorbell.refuse_writes,
            bound="REDISPATCH_AFTER_S 10",
        ),
        Fault(
            name="PostgreSQL: kill -9",
            strike=database.kill,
            bound=f"its recovery, LEASE_S {LEASE_S}",
        ),
        Fault(
            name=f"PostgreSQL: stopped for {away_s} s",
            strike=database.stop_for(away_s),
            bound=f"LEASE_S {LEASE_S}",
            repeats=1,
            check=_all_503_within_a_second,
            alone=True,
        ),
        Fault(
            name="PostgreSQL: frozen",
            strike=database.freeze,
            bound="REDISPATCH_AFTER_S 10",
            repeats=2,
        ),
        Fault(
            name="PostgreSQL: connections ended",
            strike=database.terminate_connections,
            bound=f"LEASE_S {LEASE_S}, RETRY_BASE_S 5",
        ),
        Fault(
            name="PostgreSQL: a hot table locked",
            strike=database.lock_table,
            bound="REDISPATCH_AFTER_S 10",
        ),
        Fault(
            name="PostgreSQL: disk full",
            strike=database.fill_disk,
            bound=f"its recovery, LEASE_S {LEASE_S}",
            repeats=2,
            missing=lambda world: None if world.disk else "only root may mount a small disk",
        ),
        Fault(
            name="a migration while running",
            strike=database.migrate,
            bound="lock_timeout 200 ms",
            repeats=2,
        ),
        Fault(
            name="processors that fail to import",
            strike=deploys.break_import,
            bound="restart, REDISPATCH_AFTER_S 10",
        ),
        Fault(
            name="poison in the load",
            strike=deploys.poison,
            bound=f"timeout_s 2, LEASE_S {LEASE_S}",
            repeats=2,
            check=lambda world, _journal: deploys.check_poison(world),
        ),
        Fault(
            name="clocks minutes apart",
            strike=deploys.skew_clocks,
            bound="-",
            repeats=1,
            missing=_has_no_faketime,
            alone=True,
        ),
    ]


def _has_no_faketime(_world: World) -> str | None:
    return None if deploys.faketime() else "apt-get install faketime"


def _nothing(world: World, _random: Random) -> None:
    world.fleet.wait(2)


def _no_request_failed(_world: World, journal: Journal) -> list[str]:
    """A sender's retry of a connection that was closed under it is no failed request. Neither is
    what was given up while the machine stood still, nor what is refused until the receiver has
    connected again after that."""
    stalls = [at for at, seconds, _ in journal.tries if seconds >= _STALL_S]
    failed = Counter(
        answer
        for at, _, answer in journal.tries
        if answer not in ("200", "cut")
        and not any(0 <= at - stall <= _AFTER_STALL_S for stall in stalls)
    )
    return [f"requests failed: {dict(failed)}"] if failed else []


def _all_503_within_a_second(world: World, journal: Journal) -> list[str]:
    """Nine of ten, and the rest as soon as the machine goes on. What the sender gave up counts by
    its time."""
    began, ended = world.windows[-1]
    tries = [(seconds, answer) for at, seconds, answer in journal.tries if began + 1 < at < ended]
    others = {answer for _, answer in tries} - {"503", "cut", "timeout"}
    waits = sorted(seconds for seconds, answer in tries if answer in ("503", "timeout"))
    wrong = [f"also answered {others}"] if others else []
    if not any(answer == "503" for _, answer in tries):
        return [*wrong, "nothing was answered 503 meanwhile"]
    usual, slowest = waits[len(waits) * 9 // 10], waits[-1]
    if usual > 1:
        wrong.append(f"one of ten took {usual:.2f} s or longer")
    if slowest > 10:
        wrong.append(f"the slowest took {slowest:.2f} s")
    return wrong
