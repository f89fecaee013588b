"""Who is given up when strangers want more room than there is."""

import pytest

from ingest.errors import TooManyBodies
from ingest.receiver.client_shares import PartialBody, Shares


class Bodies:
    """Bodies by name; notes who was given up."""

    def __init__(self, limit: int) -> None:
        self.shares = Shares(limit)
        self.given_up: list[str] = []

    def begin(self, name: str, host: str, size: int) -> PartialBody:
        body = PartialBody(self.shares, host, lambda: self.given_up.append(name))
        body.add(b"x" * size)
        return body


def test_one_address_may_use_all_the_room_there_is() -> None:
    bodies = Bodies(10)
    assert bytes(bodies.begin("a", "10.0.0.1", 10).content) == b"x" * 10
    assert bodies.given_up == []


def test_the_oldest_of_the_address_that_holds_most_makes_room_for_a_newcomer() -> None:
    bodies = Bodies(10)
    bodies.begin("honest", "10.0.0.2", 2)
    oldest = bodies.begin("a", "10.0.0.1", 4)
    bodies.begin("b", "10.0.0.1", 4)
    bodies.begin("another", "10.0.0.3", 3)
    assert bodies.given_up == ["a"]
    with pytest.raises(TooManyBodies):
        oldest.add(b"x")
    assert not oldest.content


def test_behind_one_address_the_newest_gets_through() -> None:
    bodies = Bodies(10)
    for number in range(100):
        bodies.begin(str(number), "10.0.0.1", 1)
    assert bodies.given_up == [str(number) for number in range(90)]


def test_addresses_of_one_ipv6_network_are_one_sender() -> None:
    bodies = Bodies(10)
    bodies.begin("honest", "2001:db8:0:2::1", 4)
    for number in range(6):
        bodies.begin(str(number), f"2001:db8::{number:x}", 2)
    assert "honest" not in bodies.given_up
    assert bodies.given_up == ["0", "1", "2"]


def test_a_body_larger_than_all_the_room_is_given_up_itself() -> None:
    bodies = Bodies(10)
    with pytest.raises(TooManyBodies):
        bodies.begin("large", "10.0.0.1", 11)
    bodies.begin("next", "10.0.0.1", 10)
    assert bodies.given_up == ["large"]


def test_what_has_ended_leaves_its_room_and_nothing_else() -> None:
    bodies = Bodies(10)
    for _ in range(3):
        bodies.begin("a", "10.0.0.1", 10).end()
    assert bodies.given_up == []
    assert not bodies.shares._held
    assert not bodies.shares._sums


def test_what_shrinks_leaves_room_and_what_has_ended_holds_nothing() -> None:
    given_up: list[str] = []
    shares = Shares(10)
    first = shares.begin("10.0.0.1", lambda: given_up.append("first"))
    second = shares.begin("10.0.0.1", lambda: given_up.append("second"))
    first.hold(8)
    first.hold(2)
    second.hold(8)
    assert given_up == []
    second.hold(9)
    assert given_up == ["first"]
    first.hold(100)
    assert given_up == ["first"]
    assert first.size == 0


def test_a_socket_of_both_families_tells_clients_of_the_older_one_apart() -> None:
    bodies = Bodies(10)
    bodies.begin("honest", "::ffff:10.0.0.2", 2)
    bodies.begin("a", "::ffff:10.0.0.1", 4)
    bodies.begin("b", "::ffff:10.0.0.1", 4)
    bodies.begin("another", "::ffff:10.0.0.3", 3)
    assert bodies.given_up == ["a"]
