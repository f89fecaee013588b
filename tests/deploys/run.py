"""One run: senders behind one proxy or several, while everything is replaced; a row for each."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.deploys.proxies import PROXIES, Behind, Proxy
from tests.deploys.world import ROOT, DeployWorld
from tests.faults import audit, database
from tests.faults.load import Journal, Load
from tests.support.rows import rows
from tests.support.servers.debian import Certificates

_STEADY_S = 2.0
_SPENT = ("failed", "timed_out", "lost")
DEPLOY = "deploy"
KILL = "receiver: kill -9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a sender behind one proxy saw in one phase."""

    proxy: str
    phase: str
    seconds: float
    answers: dict[str, int]
    slowest_s: float

    @property
    def failed(self) -> int:
        """Return how many requests were not answered 200."""
        return sum(count for answer, count in self.answers.items() if answer != "200")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    attempts: dict[str, int]
    """By their outcome."""


class Run:
    """A world with senders behind proxies."""

    def __init__(
        self,
        world: DeployWorld,
        certificates: Certificates,
        names: Sequence[str],
        random: Random,
        *,
        is_plain: bool,
    ) -> None:
        """Start the proxies, with TLS unless `is_plain`."""
        self._world = world
        self._random = random
        self._certificates = certificates
        self._scheme = "http" if is_plain else "https"
        behind = Behind(
            receivers=world.receivers,
            console=world.console,
            certificates=certificates,
            is_plain=is_plain,
        )
        self._proxies: list[Proxy] = [PROXIES[name](world.home, behind) for name in names]
        self._phases: list[tuple[str, float, float]] = []
        for proxy in self._proxies:
            world.fleet.start(proxy.program)

    def run(self, *, rate: float, rolls: int) -> Outcome:
        """Send `rate` events a second altogether through a deploy of this release, `rolls` rolling
        restarts of it, each with a migration of hot tables, and the kill of a receiver."""
        world = self._world
        loads = [self._load(proxy, rate / len(self._proxies)) for proxy in self._proxies]
        try:
            world.fleet.wait(_STEADY_S)
            with self._phase(DEPLOY):
                world.code = ROOT
                world.migrate()
                world.roll()
            for _ in range(rolls):
                with self._phase("restart, migration"):
                    database.migrate(world, self._random)
                    world.roll()
            with self._phase(KILL):
                self._kill_receiver()
            journals = [load.stop() for load in loads]
        finally:
            for load in loads:
                load.kill()
        world.fleet.until(self._is_idle, what="all is worked on", timeout_s=120, every_s=0.2)
        return self._outcome(journals)

    def _phase(self, name: str) -> "_Phase":
        return _Phase(name, self._phases)

    def _load(self, proxy: Proxy, rate: float) -> Load:
        return Load(
            self._world,
            rate=rate,
            seed=self._random.randrange(10**6),
            journal=self._journal(proxy),
            url=f"{self._scheme}://localhost:{proxy.port}/webhooks/awalchat",
            more={"SSL_CERT_FILE": str(self._certificates.authority)},
        )

    def _journal(self, proxy: Proxy) -> Path:
        return self._world.home / f"journal-{proxy.name}.jsonl"

    def _kill_receiver(self) -> None:
        member = self._world.fleet.members["receiver-1"]
        starts = member.starts
        member.process.kill()
        self._world.fleet.until(
            lambda: member.starts > starts and member.program.ready(0),
            what="the receiver is back",
            timeout_s=120,
        )
        self._world.fleet.wait(_STEADY_S)

    def _is_idle(self) -> bool:
        waiting = "SELECT (SELECT count(*) FROM unadmitted) + (SELECT count(*) FROM jobs"
        unfinished = f"{waiting} WHERE state IN ('pending', 'running', 'retrying')) AS count"
        return rows(self._world.engine, unfinished) == [{"count": 0}]

    def _outcome(self, journals: Sequence[Journal]) -> Outcome:
        found = rows(self._world.engine, "SELECT outcome, count(*) FROM attempts GROUP BY outcome")
        attempts = {row["outcome"]: row["count"] for row in found}
        problems = [f"{attempts[name]} attempts {name}" for name in _SPENT if name in attempts]
        seen: list[Row] = []
        for proxy, journal in zip(self._proxies, journals, strict=True):
            verdict = audit.check(self._world.engine, journal, self._world.outside)
            if not verdict.is_clean or verdict.dead or verdict.repeats:
                problems.append(f"{proxy.name}: {verdict}")
            seen += [_row(proxy, journal, phase) for phase in self._phases]
        problems += [
            f"{row.proxy}, {row.phase}: {row.failed} requests failed: {row.answers}"
            for row in seen
            if row.failed and row.phase != KILL  # no proxy can end an answer that was cut
        ]
        return Outcome(rows=tuple(seen), problems=tuple(problems), attempts=attempts)


class _Phase:
    """Notes when something began and ended, in Unix time."""

    def __init__(self, name: str, phases: list[tuple[str, float, float]]) -> None:
        self._name = name
        self._phases = phases
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.time()

    def __exit__(self, *_: object) -> None:
        self._phases.append((self._name, self._began, time.time()))


def _row(proxy: Proxy, journal: Journal, phase: tuple[str, float, float]) -> Row:
    name, began, ended = phase
    tries = [(took, answer) for at, took, answer in journal.tries if began <= at < ended]
    return Row(
        proxy=proxy.name,
        phase=name,
        seconds=ended - began,
        answers=dict(Counter(answer for _, answer in tries)),
        slowest_s=max((took for took, _ in tries), default=0.0),
    )
