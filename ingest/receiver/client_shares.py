"""What strangers hold of this process, shared among their addresses.

Anybody can send half a request, before any signature is checked. One address may use all the room
there is while no other wants any. When it runs out, the oldest share of the address that holds most
is given up, not the newcomer's: a sender that finishes gets through, whoever else is halfway, also
where everybody comes from one address, a reverse proxy's.
"""

import ipaddress
from collections.abc import Callable

from ingest.errors import TooManyBodies

_SENDER_PREFIX = 64
"""Bits of an IPv6 address that one sender has at least: the rest it chooses."""


class Share:
    """What one body, or one connection, holds of the room."""

    __slots__ = ("_give_up", "_shares", "address", "size")

    def __init__(self, shares: "Shares", address: str, give_up: Callable[[], None]) -> None:
        self._shares = shares
        self._give_up = give_up
        self.address = address
        self.size = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on. Where that is too much, shares are given up, this one
        perhaps. One that has ended holds nothing."""
        self._shares.resize(self, size)

    def end(self) -> None:
        """Give the room back; it may have been given up already."""
        self._shares.remove(self)

    def give_up(self) -> None:
        """Give the room back because others want it, and tell the holder."""
        self.end()
        self._give_up()


class Shares:
    """The room for all."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._total = 0
        self._held: dict[str, dict[Share, None]] = {}
        """By address, its shares in the order in which they began."""
        self._sums: dict[str, int] = {}

    def begin(self, host: str, give_up: Callable[[], None]) -> Share:
        """Return a share for the client at `host`; `give_up` is called when its room is wanted."""
        share = Share(self, _sender(host), give_up)
        self._held.setdefault(share.address, {})[share] = None
        self._sums.setdefault(share.address, 0)
        return share

    def resize(self, share: Share, size: int) -> None:
        """Let a share hold `size` bytes, and make room for that."""
        if share not in self._held.get(share.address, ()):
            return
        self._count(share, size)
        while self._total > self._limit:
            greediest = max(self._sums, key=self._sums.__getitem__)
            next(held for held in self._held[greediest] if held.size).give_up()

    def remove(self, share: Share) -> None:
        """Forget a share, if it is known."""
        shares = self._held.get(share.address, {})
        if share not in shares:
            return
        self._count(share, 0)
        del shares[share]
        if not shares:
            del self._held[share.address], self._sums[share.address]

    def _count(self, share: Share, size: int) -> None:
        more = size - share.size
        share.size = size
        self._sums[share.address] += more
        self._total += more


class PartialBody:
    """A body on its way: what has come of it."""

    def __init__(self, shares: Shares, host: str, give_up: Callable[[], None]) -> None:
        """Begin a body of the client at `host`; `give_up` is called when its room is wanted."""
        self.content = bytearray()  # pieces of two bytes each would take twenty times as much
        self.is_given_up = False
        self._tell = give_up
        self._share = shares.begin(host, self._give_up)

    def add(self, chunk: bytes) -> None:
        """Take what came.

        Raises:
            TooManyBodies: its room was given to others.
        """
        if not self.is_given_up:
            self.content += chunk
            self._share.hold(len(self.content))
        if self.is_given_up:
            raise too_many()

    def end(self) -> None:
        """Give its room back."""
        self._share.end()

    def _give_up(self) -> None:
        """Let go of what has come, and tell who waits for the rest."""
        self.is_given_up = True
        self.content = bytearray()
        self._tell()


def too_many() -> TooManyBodies:
    """Return what a sender is told whose body was given up."""
    return TooManyBodies("Too many bodies are on their way.", reason="too_many_bodies")


def _sender(host: str) -> str:
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped:  # as a socket of both families names a client of the older one
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _SENDER_PREFIX), strict=False))
