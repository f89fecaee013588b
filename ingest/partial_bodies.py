"""What bodies that have come in part may hold together, shared among the addresses that send them.

Anybody can send halves, before any signature is checked. One address may use all there is while no
other wants any. When it runs out, the oldest body of the address that holds most is given up, not
the newcomer: a sender that finishes gets through, whoever else is halfway, also where everybody
comes from one address, a reverse proxy's.
"""

import ipaddress
from collections.abc import Callable

from ingest.errors import TooManyBodies

_SENDER_PREFIX = 64
"""Bits of an IPv6 address that one sender has at least: the rest it chooses."""


class PartialBody:
    """One body on its way: what has come of it, and its share of the whole."""

    def __init__(self, shares: "Shares", address: str, give_up: Callable[[], None]) -> None:
        self.content = bytearray()  # pieces of two bytes each would take twenty times as much
        self.is_given_up = False
        self._shares = shares
        self.address = address
        self._give_up = give_up

    def add(self, chunk: bytes) -> None:
        """Take what came.

        Raises:
            TooManyBodies: its room was given to others.
        """
        if not self.is_given_up:
            self.content += chunk
            self._shares.grow(self, len(chunk))
        if self.is_given_up:
            raise too_many()

    def give_up(self) -> None:
        """Let go of what has come, and tell who waits for the rest."""
        self.is_given_up = True
        self.content = bytearray()
        self._give_up()


class Shares:
    """The room for all bodies that have come in part."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._total = 0
        self._held: dict[str, dict[PartialBody, int]] = {}
        """By address, its bodies in the order in which they began, and their bytes."""
        self._sums: dict[str, int] = {}

    def begin(self, host: str, give_up: Callable[[], None]) -> PartialBody:
        """Return a body of the client at `host`; `give_up` is called when its room is wanted."""
        body = PartialBody(self, _sender(host), give_up)
        self._held.setdefault(body.address, {})[body] = 0
        self._sums.setdefault(body.address, 0)
        return body

    def grow(self, body: PartialBody, size: int) -> None:
        """Count more bytes of a body, and make room for them."""
        self._held[body.address][body] += size
        self._sums[body.address] += size
        self._total += size
        while self._total > self._limit:
            greediest = max(self._sums, key=self._sums.__getitem__)
            oldest = next(held for held, size in self._held[greediest].items() if size)
            self.end(oldest)
            oldest.give_up()

    def end(self, body: PartialBody) -> None:
        """Give a body's room back; it may have been given up already."""
        bodies = self._held.get(body.address, {})
        size = bodies.pop(body, 0)
        self._total -= size
        if bodies:
            self._sums[body.address] -= size
        elif body.address in self._held:
            del self._held[body.address], self._sums[body.address]


def too_many() -> TooManyBodies:
    """What a sender is told whose body was given up."""
    return TooManyBodies("Too many bodies are on their way.", reason="too_many_bodies")


def _sender(host: str) -> str:
    if ":" not in host:
        return host
    try:
        return str(ipaddress.IPv6Network((host.partition("%")[0], _SENDER_PREFIX), strict=False))
    except ValueError:
        return host
