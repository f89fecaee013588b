"""How the console spells numbers, lengths of time, moments and JSON."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.console.ui import formats
from ingest.console.ui.formats import NOTHING

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "spelled"),
    [(0, "0"), (1234, "1,234"), (-5, f"{MINUS}5"), (12.5, "12.5"), (0.034, "0.034"), (123.4, "123"),
     (None, NOTHING), (float("nan"), NOTHING), (float("inf"), NOTHING)],
)  # fmt: skip
def test_number(value: float | None, spelled: str) -> None:
    assert formats.number(value) == spelled


@pytest.mark.parametrize(
    ("value", "spelled"),
    [(950, "950"), (1000, "1 k"), (12_345, "12.3 k"), (999_949, "999.9 k"), (999_960, "1 M"),
     (1_200_000, "1.2 M"), (3e9, "3 G"), (5e15, "5,000 T"), (None, NOTHING)],
)  # fmt: skip
def test_compact(value: float | None, spelled: str) -> None:
    assert formats.compact(value) == spelled


@pytest.mark.parametrize(
    ("kind", "spelled"),
    [("exact", "1,234,567"), ("about", "about 1.2 M"), ("at least", "at least 1,234,567")],
)
def test_a_count_says_how_far_it_can_be_trusted(kind: str, spelled: str) -> None:
    assert formats.counted(1_234_567, kind) == spelled


def test_plural() -> None:
    assert formats.plural(1, "job") == "1 job"
    assert formats.plural(1234, "job") == "1,234 jobs"
    assert formats.plural(0, "delivery", "deliveries") == "0 deliveries"


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [(0, "0 ms"), (0.0004, "0.4 ms"), (0.0125, "12 ms"), (0.9996, "1 s"), (1.44, "1.4 s"),
     (9.96, "10 s"), (59.7, "1 min"), (200, "3 min 20 s"), (3_600, "1 h"), (7_500, "2 h 5 min"),
     (3_599.9, "1 h"), (273_600, "3 d 4 h"), (86_400 * 1_500, "1,500 d"), (-1.5, f"{MINUS}1.5 s"),
     (timedelta(minutes=3), "3 min"), (None, NOTHING), (float("inf"), NOTHING)],
)  # fmt: skip
def test_duration(seconds: float | timedelta | None, spelled: str) -> None:
    assert formats.duration(seconds) == spelled


@given(st.floats(min_value=0, max_value=1e12))
def test_a_duration_never_shows_a_full_unit(seconds: float) -> None:
    parts = formats.duration(seconds).split()
    shown = set(zip(parts[::2], parts[1::2], strict=True))
    assert not {("1000", "ms"), ("1,000", "ms"), ("60", "s"), ("60", "min")} & shown


@pytest.mark.parametrize(
    ("value", "spelled"),
    [(512, "512 B"), (1536, "1.5 KiB"), (1024**2, "1 MiB"), (3 * 2**30, "3 GiB"), (None, NOTHING)],
)
def test_size(value: int | None, spelled: str) -> None:
    assert formats.size(value) == spelled


def test_moments_are_utc() -> None:
    riyadh = datetime(2026, 1, 31, 15, 0, 0, 123_456, timezone(timedelta(hours=3)))
    assert formats.iso(riyadh) == "2026-01-31T12:00:00.123Z"
    assert formats.utc(riyadh) == "2026-01-31 12:00:00 UTC"
    assert formats.iso(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("event_id", "head", "tail"),
    [
        ("order.created:790", "790", ""),
        ("another-790", "another-790", ""),
        ("order.created:wamid.HBgMOTY2NTAwMDAwMDAwFQIAEhggRDdB:delivered",
         "wamid.HBgMOTY2NTAwMDAwMDAwFQIAEhggRDdB", ":delivered"),
        ("order.created:#" + "9f" * 32, "#" + "9f" * 28 + "9", "f9f9f9f"),
    ],
)  # fmt: skip
def test_a_long_id_keeps_its_end(event_id: str, head: str, tail: str) -> None:
    parts = formats.id_parts(event_id, "order.created")
    assert (parts.type, parts.head, parts.tail) == ("order.created", head, tail)


def test_json_is_marked_and_escaped() -> None:
    html = formats.json_html('{"a<b": "x & \\"y\\"", "n": -1.5e3, "ok": true, "none": null}')
    assert '<span class="json-key">&#34;a&lt;b&#34;</span>' in html
    assert '<span class="json-string">&#34;x &amp; \\&#34;y\\&#34;&#34;</span>' in html
    assert '<span class="json-number">-1.5e3</span>' in html
    assert html.count('<span class="json-word">') == 2


def test_a_string_of_another_direction_is_kept_apart() -> None:
    html = formats.json_html('{"body": "مرحبا"}')
    assert '<span class="json-string">&#34;<bdi>مرحبا</bdi>&#34;</span>' in html


@given(st.text(alphabet=st.sampled_from("ab\"\\:,{} -1.5e<>&'\nمر") | st.characters()))
def test_nothing_of_a_text_is_lost_or_becomes_markup(text: str) -> None:
    html = formats.json_html(text)
    assert unescape(re.sub(r'<span class="json-\w+">|</span>|</?bdi>', "", html)) == text


@pytest.mark.parametrize("hostile", ['"' + '\\"' * 200_000, '"a" ' * 100_000, "\\" * 400_000])
def test_no_text_takes_long(hostile: str) -> None:
    began = time.thread_time()
    formats.json_html(hostile)
    assert time.thread_time() - began < 60  # 0.5 s; quadratic, it would be hours


def test_an_empty_type_is_seen() -> None:
    assert formats.type_name("order.created") == "order.created"
    assert formats.type_name("") == "(empty type)"
