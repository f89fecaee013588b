import json
import time
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import strict_json
from tests.support.effort import examples

storable = st.characters(exclude_categories=["Cs"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(storable),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(storable), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_it_reads_what_the_standard_library_writes(value: Any) -> None:
    assert strict_json.loads(json.dumps(value).encode()) == value
    assert strict_json.loads(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.dictionaries(st.text(storable), json_values, max_size=6))
def test_the_canonical_spelling_ignores_order_white_space_and_escapes(
    value: dict[str, Any],
) -> None:
    shuffled = dict(reversed(value.items()))
    pretty = json.dumps(shuffled, indent=3).encode()
    assert strict_json.canonical(strict_json.loads(pretty)) == strict_json.canonical(value)


def read_by_the_standard_library(raw: bytes) -> Any:
    """Read as `strict_json.loads` is documented; it has no depth limit."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    def number(digits: str) -> Decimal | str:
        try:
            return Decimal(digits)
        except InvalidOperation:  # an exponent of more than 18 digits
            return digits

    decoder = json.JSONDecoder(parse_float=number, parse_constant=refuse)
    return decoder.decode(raw.decode("utf-8"))


def spelled_by_the_standard_library(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


_PIECES = [
    *rb'{ } [ ] , : " \ \u d83d \ude00 0 1 - . e+ a true nul null NaN Infinity "a": // '.split(),
    *(
        b"9" * 25,
        b" ",
        b"\n",
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
        b"'",
    ),
]
bytes_like_json = st.lists(st.sampled_from(_PIECES), max_size=14).map(b"".join)


@settings(max_examples=examples(1_500))
@given(bytes_like_json)
def test_it_reads_and_refuses_what_the_standard_library_does(raw: bytes) -> None:
    try:
        expected = read_by_the_standard_library(raw)
    except ValueError:
        with pytest.raises(strict_json.InvalidJson):
            strict_json.loads(raw)
        return
    read = strict_json.loads(raw)
    assert repr(read) == repr(expected)  # `==` takes 1 for 1.0 and for true


@given(json_values | st.text() | st.dictionaries(st.text(), st.text()))
def test_the_canonical_spelling_is_the_standard_librarys(value: Any) -> None:
    assert strict_json.canonical(value) == spelled_by_the_standard_library(value)


def test_each_character_is_spelled_as_the_standard_library_spells_it() -> None:
    """Each alone, since one that is rare decides how a whole text is spelled."""
    for code in (*range(0x1_0000), 0x1_0000, 0x10_FFFF):
        text = chr(code)
        assert strict_json.canonical(text) == spelled_by_the_standard_library(text), hex(code)


@pytest.mark.parametrize(
    "text",
    ["\x7f", "\x00\x1f", "\u2028", "é", "مرحبا", "😀", "\ud800", '"\\/', "9" * 4_300, "\\u0041Ā"],
)
def test_no_character_is_spelled_otherwise_than_before(text: str) -> None:
    for value in (text, {text: [text]}, [1, "a", {"b": text}]):
        assert strict_json.canonical(value) == spelled_by_the_standard_library(value)


def test_no_integer_is_spelled_otherwise_than_before() -> None:
    for power in (0, 31, 32, 53, 63, 64, 65, 1_000, 14_000):
        for number in (2**power, -(2**power), 2**power - 1, 2**power + 1):
            assert strict_json.canonical([number]) == f"[{number}]".encode()


def test_decimals_are_spelled_with_their_digits_beside_any_text() -> None:
    for text in ("a", "é"):
        value = strict_json.loads(f'{{"b":1.50,"a":[1E5,-0.0,"{text}"]}}'.encode())
        spelled = json.dumps(text)
        assert strict_json.canonical(value) == f'{{"a":[1E+5,-0.0,{spelled}],"b":1.50}}'.encode()


def test_a_mark_at_the_beginning_is_passed_over() -> None:
    assert strict_json.loads(b'\xef\xbb\xbf["a"]') == ["a"]


def test_numbers_keep_their_digits() -> None:
    read = strict_json.loads(b"[99999999999999.99, 1250.00, 1e2, 12345678901234567890123]")
    assert read == [
        Decimal("99999999999999.99"),
        Decimal("1250.00"),
        Decimal("1E+2"),
        12345678901234567890123,
    ]
    assert str(read[1]) == "1250.00"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"[1.0]", b"[1.00]"),
        (b"[1.5]", b'["1.5"]'),
        (b"[0.1000000000000000055511151231257827]", b"[0.1]"),
        (b"[12345678901234567890]", b"[12345678901234567891]"),
        (b'{"v":1.5}', b'{"v":["number","1.5"]}'),
    ],
)
def test_different_digits_are_different_content(one: bytes, other: bytes) -> None:
    spell = strict_json.canonical
    assert spell(strict_json.loads(one)) != spell(strict_json.loads(other))


def test_an_integer_of_more_digits_than_python_converts_is_still_json() -> None:
    read = strict_json.loads(b"[" + b"7" * 5_000 + b"]")
    assert read == [Decimal("7" * 5_000)]
    strict_json.canonical(read)


def test_an_exponent_beyond_all_measure_is_still_json() -> None:
    strict_json.canonical(strict_json.loads(b"[1e99999999999999999999, -1E-99999999999999999999]"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"event=order.created",
        b"{'a': 1}",
        b"[1,]",
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b'["\xff\xfe"]',
        '["a"]'.encode("utf-16"),
        '["a"]'.encode("utf-32"),
        b'\xef\xbb\xbf\xef\xbb\xbf["a"]',
        b'["a"]\xef\xbb\xbf',
        b'["\x01"]',
        b"[1] [2]",
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(strict_json.InvalidJson):
        strict_json.loads(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_the_depth_limit_is_exact(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"

    def nested(depth: int) -> bytes:
        return opening * depth + b"0" + closing * depth

    strict_json.loads(nested(strict_json.MAX_DEPTH))
    with pytest.raises(strict_json.InvalidJson, match="deep"):
        strict_json.loads(nested(strict_json.MAX_DEPTH + 1))


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    wide = {"text": "[{" * 5_000 + '\\"[[' * 100, "list": [[], {}] * 5_000}
    assert strict_json.loads(json.dumps(wide).encode()) == wide


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'"' + b'\\"' * 500_000,
        b'["' + b"\\" * 999_999,
        b"[]" * 500_000,
        b'"[' * 350_000,
        b"[" + b'"a",' * 250_000,
    ],
)
def test_a_hostile_megabyte_is_refused_in_little_time(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(strict_json.InvalidJson):
        strict_json.loads(body)
    assert time.perf_counter() - began < 10  # quadratic, it would be minutes
