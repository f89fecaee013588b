"""How many durable answers a second, and how soon they come."""

from dataclasses import dataclass

from tests.benchmarks.client import send
from tests.benchmarks.load import Plan, Result
from tests.benchmarks.subject import Receiving
from tests.benchmarks.world import World

_WARM_UP = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One run against one subject."""

    subject: str
    connections: int
    body_bytes: int
    offered: float | None
    """Requests a second; None: as fast as it answers."""
    result: Result
    cpu_us: dict[str, float]
    """CPU time per answer by kind of process, microseconds."""


class Target:
    """A subject's receivers in a world, and the numbers of the messages that they have seen."""

    def __init__(self, world: World, subject: Receiving, *, receivers: int = 1) -> None:
        """Start them, and warm them up."""
        subject.prepare(world)
        self._world = world
        self._subject = subject
        self._first = 0
        self._port = subject.start_receivers(world, receivers)
        self.ask(count=_WARM_UP, connections=8)

    def ask(
        self,
        *,
        count: int,
        connections: int,
        rate: float | None = None,
        body_bytes: int = 300,
        seconds: float | None = None,
    ) -> Answers:
        """Send up to `count` requests over `connections`, at most for `seconds`."""
        plan = Plan(
            port=self._port,
            path=self._subject.path,
            count=count,
            connections=connections,
            rate=rate,
            body_bytes=body_bytes,
            first=self._first,
            seconds=seconds,
        )
        self._first += count
        before = self._world.cpu_s()
        result = send(plan)
        after = self._world.cpu_s()
        if result.ok != sum(result.answers.values()):
            raise RuntimeError(f"{self._subject.name}: not all answers were 200: {result.answers}")
        spent = {kind: (after[kind] - before.get(kind, 0.0)) / result.ok * 1e6 for kind in after}
        return Answers(
            subject=self._subject.name,
            connections=connections,
            body_bytes=body_bytes,
            offered=rate,
            result=result,
            cpu_us=spent | {"client": result.client_cpu_s / result.ok * 1e6},
        )
