"""Whose word on their clients is believed."""

import pytest

from ingest.proxies import Trusted


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_a_proxy_is_known_on_a_socket_of_both_families_too(peer: str) -> None:
    trusted = Trusted(["10.0.0.0/24"])
    assert trusted.client(peer, [(b"x-forwarded-for", b"203.0.113.7")]) == "203.0.113.7"


def test_a_stranger_is_not_believed() -> None:
    trusted = Trusted(["10.0.0.0/24"])
    assert trusted.client("::ffff:10.0.1.1", [(b"x-forwarded-for", b"203.0.113.7")]) == (
        "::ffff:10.0.1.1"
    )
