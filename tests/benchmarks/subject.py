"""What is measured. All do the same work: verify, store durably, dedupe by id, write the message's
row, mark it done."""

from dataclasses import dataclass
from typing import Protocol

from tests.benchmarks.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What workers did to a backlog, by the stamps in the database."""

    events: int
    seconds: float
    """From the first that was begun, or finished, to the last that was finished."""

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


class Receiving(Protocol):
    """Takes requests."""

    name: str
    path: str
    """Where to post."""

    def prepare(self, world: World) -> None:
        """Make the schema, once in a world."""

    def start_receivers(self, world: World, number: int = 1) -> int:
        """Start so many processes named `receiver-N`; returns the port that they share."""


class Working(Protocol):
    """Works on what waits."""

    name: str

    def prepare(self, world: World) -> None:
        """Make the schema, once in a world."""

    def fill(self, world: World, count: int, *, first: int = 0) -> None:
        """Let messages `first` to `first + count - 1` (tests.benchmarks.messages) wait, stored and
        queued as the subject's own receiver would."""

    def start_workers(self, world: World, number: int = 1) -> None:
        """Start workers of two processes each, named `worker-N`, and whatever else they need."""

    def is_done(self, world: World) -> bool:
        """Whether nothing waits any more; cheap enough to be asked twice a second."""

    def drained(self, world: World) -> Drained:
        """How it went, once it is done."""
