"""A phone number is found however it is spelled, and no other number is taken for it."""

import base64
import json
from urllib.parse import quote, urlencode

import pytest

from ingest.erasure.spellings import Spellings
from tests.support.erasing import wamid

NUMBER = "966512345678"
ARABIC = NUMBER.translate({ord(str(digit)): chr(0x0660 + digit) for digit in range(10)})
SARA = Spellings({NUMBER}, {"SA.abc123", "sara@example.com"})


@pytest.mark.parametrize(
    "text",
    [
        NUMBER,
        "+966 51 234 5678",
        "00966-51-234-5678",
        "(966) 51.234.5678",
        "\u200e+966\u00a051\u2011234\u20115678",
        urlencode({"To": "+966 51 234 5678"}),
        quote(ARABIC),
        ARABIC,
        json.dumps({"from": ARABIC}),
        json.dumps(json.dumps({"from": f"\u200e+{NUMBER}"})),
        f"{NUMBER}@s.whatsapp.net",
        wamid(NUMBER),
        f"message.received:{wamid(NUMBER)[:-3]}...",
        "x=" + base64.urlsafe_b64encode(f"to {NUMBER};".encode()).decode(),
        "user SA.abc123 wrote",
        "Email=sara%40example.com&x=1",
    ],
)
def test_every_spelling_is_found(text: str) -> None:
    assert SARA.are_in(text)
    assert SARA.are_in(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "966512345679",
        "1966512345678",
        "9665123456780",
        "51 234 5678",
        wamid("966512345679"),
        "SA.abc1234",
        "xsara@example.com",
    ],
)
def test_nothing_else_is_taken_for_it(text: str | None) -> None:
    assert not SARA.are_in(text)


def test_nothing_is_found_where_nothing_is_searched_for() -> None:
    assert not Spellings(()).are_in(NUMBER)
