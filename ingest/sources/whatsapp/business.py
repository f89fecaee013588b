"""A business on WhatsApp: customers who write, and what becomes of the messages that it sends.

Statuses come in any order, `delivered` is missing now and then, and busy moments come as one body
of many updates. Whatever arrives twice or late is the sender's doing (`ingest.simulation.sender`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from ingest.sources.whatsapp.samples import (
    Person,
    Update,
    make,
    message,
    message_id,
    pack,
    person,
    status,
    types,
)

_ACTIVE_CUSTOMERS = 40
"""Whose updates are interleaved."""
_BATCHED = 0.15
"""Share of the bodies that hold several updates."""
_MOST_UPDATES = 25
_NOTICES = 0.02
"""Share of the bodies that tell of templates, the account and changed user ids."""
_KINDS = ("text", "text", "text", "text", "image", "audio", "interactive", "button", "location")


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One request, with one or several updates."""

    number: int
    """Counts from 0."""
    type: str
    """The event type of the first update."""
    content: bytes

    def body(self, _sent_at: datetime | None = None) -> bytes:
        """Return the request's body: a retry has the same."""
        return self.content


class Business:
    """An endless stream of requests, the same for the same `random` and start."""

    def __init__(self, random: Random, *, opened_at: datetime) -> None:
        """`opened_at` is the business's own time (UTC) when its first customer writes."""
        self._random = random
        self._now = opened_at

    def occurrences(self) -> Iterator[Occurrence]:
        """Yield all requests, for ever."""
        customers = [self._customer() for _ in range(_ACTIVE_CUSTOMERS)]
        number = 0
        while True:
            if self._random.random() < _NOTICES:
                event_type, content = self._notice()
            else:
                updates = self._updates(customers)
                event_type, content = updates[0].type, pack(updates)
            yield Occurrence(number=number, type=event_type, content=content)
            number += 1

    def _notice(self) -> tuple[str, bytes]:
        notices = [name for name in types() if not name.startswith(("messages.", "statuses."))]
        event_type = self._random.choice(notices)
        self._pass_time()  # two equal notices of one second would be one event
        return event_type, make(event_type, self._random, self._now)

    def _updates(self, customers: list[Iterator[Update]]) -> Sequence[Update]:
        """Return what one request tells, of whatever customers."""
        is_batch = self._random.random() < _BATCHED
        count = self._random.randrange(2, _MOST_UPDATES) if is_batch else 1
        updates: list[Update] = []
        while len(updates) < count:
            place = self._random.randrange(len(customers))
            update = next(customers[place], None)
            if update is None:
                self._pass_time()
                customers[place] = self._customer()
            else:
                updates.append(update)
        return updates

    def _pass_time(self) -> None:
        self._now += timedelta(seconds=self._random.randrange(1, 60))

    def _customer(self) -> Iterator[Update]:
        """Yield one customer's messages, and the statuses of the answers to them."""
        customer, at = person(self._random), self._now
        for _ in range(self._random.randrange(1, 5)):
            at += timedelta(seconds=self._random.randrange(1, 120))
            yield message(self._random.choice(_KINDS), self._random, at, customer)
            yield from self._statuses(customer, at)

    def _statuses(self, customer: Person, at: datetime) -> Iterator[Update]:
        """Yield the statuses of an answer, in the order in which they come: any."""
        states = list(
            self._random.choice(
                (
                    ("sent",),
                    ("sent", "failed"),
                    ("sent", "delivered"),
                    ("sent", "delivered", "read"),
                    ("sent", "read"),
                    ("sent", "delivered", "read", "played"),
                )
            )
        )
        answer = message_id(self._random)
        statuses = []
        for state in states:
            at += timedelta(seconds=self._random.randrange(1, 30))
            statuses.append(status(state, self._random, at, customer, answer))
        self._random.shuffle(statuses)
        yield from statuses
