"""JSON laid out for reading says what was sent, digit for digit."""

import json
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.console.ui.json_view import pretty

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def read(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


@given(VALUES, st.booleans())
def test_it_means_what_was_sent(value: object, is_ascii: bool) -> None:
    sent = json.dumps(value, ensure_ascii=is_ascii)
    assert read(pretty(sent)) == read(sent)


@given(st.text(max_size=200))
def test_whatever_it_is_it_is_shown(text: str) -> None:
    assert pretty(text) or not text


def test_numbers_keep_their_digits_and_escapes_are_spelled_out() -> None:
    sent = (
        '{"total":1250.00,"big":12345678901234567890,'
        '"name":"\\u0623\\u062d\\u0645\\u062f","x":[],"y":{}}'
    )
    assert pretty(sent) == (
        '{\n  "total": 1250.00,\n  "big": 12345678901234567890,\n  "name": "أحمد",\n'
        '  "x": [],\n  "y": {}\n}'
    )


def test_half_a_character_stays_as_it_was_sent() -> None:
    assert pretty('["\\ud83d"]') == '[\n  "\\ud83d"\n]'
