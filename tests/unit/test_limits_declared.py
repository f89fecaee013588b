"""What `@processor` takes of limits, and what it refuses."""

import math
from typing import Any

import pytest

from ingest.rates import Rate
from workers.limits import limits_of

NONE: dict[str, Any] = dict.fromkeys(
    ("concurrency", "rate", "limit_by", "key_concurrency", "key_rate")
)

KEYED: dict[str, Any] = {"limit_by": "contact_id"}


def test_limits_are_those_that_were_given() -> None:
    limits = limits_of(**NONE | {"concurrency": 20, "limit_by": "contact_id", "key_rate": "5/s"})
    assert limits is not None
    assert (limits.bounds.concurrency, limits.bounds.rate) == (20, None)
    assert limits.bounds.key_rate == Rate(5, 1)
    assert limits.key is not None
    assert limits.key.described == "contact_id"


def test_without_any_there_are_none() -> None:
    assert limits_of(**NONE) is None


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"concurrency": 0}, ValueError, "concurrency is 1 to 100,000 jobs at once"),
        ({"concurrency": True}, TypeError, "concurrency is a whole number"),
        ({"concurrency": "20"}, TypeError, "concurrency is a whole number"),
        ({"concurrency": math.inf}, TypeError, "concurrency is a whole number"),
        ({"concurrency": -1}, ValueError, "concurrency is 1 to 100,000 jobs at once"),
        ({"concurrency": 10**400}, ValueError, "concurrency is 1 to 100,000 jobs at once"),
        (KEYED | {"key_concurrency": math.nan}, TypeError, "key_concurrency is a whole number"),
        (KEYED | {"key_concurrency": -1}, ValueError, "key_concurrency is 1 to 100,000 jobs"),
        ({"rate": math.nan}, TypeError, "rate is a text: 50/s, 1000/m, 500/h or 10/5s"),
        ({"rate": "nan/s"}, ValueError, "rate: 'nan/s' is no rate"),
        ({"rate": "inf/s"}, ValueError, "rate: 'inf/s' is no rate"),
        ({"rate": "-1/s"}, ValueError, "rate: '-1/s' is no rate"),
        ({"rate": "9999999/s"}, ValueError, "rate: '9999999/s': a rate allows 1 to 1,000,000"),
        (KEYED | {"key_rate": True}, TypeError, "key_rate is a text"),
        ({"rate": 50}, TypeError, "rate is a text: 50/s, 1000/m, 500/h or 10/5s"),
        ({"rate": "fast"}, ValueError, "rate: 'fast' is no rate: write 50/s, 1000/m, 500/h or"),
        ({"key_rate": "5/s"}, ValueError, "key_rate needs limit_by: what is the key?"),
        ({"key_concurrency": 1}, ValueError, "key_concurrency needs limit_by: what is the key?"),
        ({"limit_by": "a..b"}, ValueError, "'a..b' is no field: name one"),
        ({"limit_by": ()}, TypeError, "limit_by is a field (order_id), up to 8 of them, or a"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(
    given: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as refused:
        limits_of(**NONE | given)
    assert str(refused.value).startswith(told)
