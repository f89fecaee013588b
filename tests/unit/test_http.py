"""What is made of a head before the parser sees it."""

import pytest

from ingest.http import _without_upgrade

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE", b"uPgrade"])
def test_an_offer_in_the_head_is_made_unreadable_and_keeps_its_length(name: bytes) -> None:
    data = HEAD + name + b": h2c\r\n\r\nbody"
    read = _without_upgrade(data)
    assert len(read) == len(data)
    assert name + b":" not in read
    assert read.endswith(b": h2c\r\n\r\nbody")


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n\r\nupgrade: what a signed body may say",
        b"POST / HTTP/1.1\r\nX-Upgrade: 1\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
    ],
)
def test_nothing_else_is_touched(data: bytes) -> None:
    assert _without_upgrade(data) == data
