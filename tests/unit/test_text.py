from hypothesis import given
from hypothesis import strategies as st

from ingest.text import is_storable, storable


@given(st.text(st.characters(exclude_categories=())))
def test_what_comes_out_can_be_stored_and_is_stored_unchanged(text: str) -> None:
    clean = storable(text)
    assert "\x00" not in clean
    clean.encode("utf-8")
    assert storable(clean) == clean
    assert is_storable(text) == (clean == text)


def test_arabic_and_emoji_stay_as_they_are() -> None:
    assert storable("مرحباً 🌹") == "مرحباً 🌹"


def test_a_long_text_is_cut_to_the_limit() -> None:
    assert storable("x" * 300, limit=200) == "x" * 199 + "…"
    assert storable("x" * 200, limit=200) == "x" * 200
