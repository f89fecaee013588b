"""Addresses, as people write them and as libraries read them."""

import pytest

from ingest.store.database import conninfo


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql:///shop", "postgresql:///shop"),
        ("postgres://u:p%40@db:5433/shop", "postgresql://u:p%40@db:5433/shop"),
        ("postgresql+psycopg://u@/shop?host=%2Frun", "postgresql://u@/shop?host=%2Frun"),
        ("postgresql://u@a:1,b:2/shop", "postgresql://u@a:1,b:2/shop"),
    ],
)
def test_only_the_scheme_of_an_address_is_changed(given: str, expected: str) -> None:
    assert conninfo(given) == expected
