"""Whether a value in a raw body is more or less than a number or a time: in SQL, and in Python for
what was decrypted.

Numbers are compared with numbers and with strings that spell one (`"12.50"`). Times are compared
with strings that begin with a date, in UTC where they name no offset, and with what senders send as
the time since the epoch: ten digits of seconds, or thirteen of milliseconds. Anything else is
neither more nor less.
"""

import operator
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from ingest.store.search import opened_bodies
from ingest.store.search.body_conditions import BodyTest, run_of, unlikely

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
"""What each sign asks for; the longer ones first."""


def is_number(text: str) -> bool:
    """Return whether a text spells a number, without an exponent."""
    return _NUMBER.fullmatch(text) is not None


def compares(path: str, sign: str, value: str, name: str) -> BodyTest:
    """Return the test for a value under a dotted path of the body. The names of its parameters
    begin with `name`.

    Args:
        path: `data.total`.
        sign: one of `COMPARE`.
        value: a number, or a time with its offset.
        name: for the parameters.
    """
    numbers = is_number(value)
    steps = path.split(".")
    last = next((step for step in reversed(steps) if not step.lstrip("-").isdigit()), None)
    run = None if last is None else run_of(last)
    absent, values = unlikely(run, name)
    member = f"json #>> CAST(:{name}_path AS text[])"
    kind = f"jsonb_typeof(json #> CAST(:{name}_path AS text[]))"
    comparable = _AS_NUMBER if numbers else _AS_MOMENT
    bound = f"CAST(:{name}_value AS {'numeric' if numbers else 'timestamp'})"
    # CASE, because its parts are evaluated in their order, which those of AND need not be.
    found = f"""CASE WHEN {absent} THEN false ELSE coalesce((
                SELECT {comparable} {sign} {bound} FROM (
                    SELECT {member} AS spelled, {kind} AS kind
                    FROM (SELECT ingest.body_json(body) AS json OFFSET 0) AS parsed OFFSET 0
                ) AS member WHERE kind IN ('number', 'string')), false) END"""
    values |= {
        f"{name}_path": steps,
        f"{name}_value": value if numbers else _naive(datetime.fromisoformat(value)),
        f"{name}_opened": [],
    }
    asked = Decimal(value) if numbers else _naive(datetime.fromisoformat(value))
    return BodyTest(
        row="false",
        clear=found,
        values=values,
        matches=partial(_compares, steps, COMPARE[sign], asked, run=run),
        opened=f"{name}_opened",
    )


def _compares(
    steps: Sequence[str],
    compare: Callable[[Any, Any], bool],
    asked: Decimal | datetime,
    body: bytes,
    *,
    run: opened_bodies.Run | None,
) -> bool:
    if run is not None and run.is_absent(body):
        return False
    (member,) = opened_bodies.members(body, [steps]) or [None]
    if isinstance(member, bool) or not isinstance(member, int | Decimal | str):
        return False
    comparable = _number(member) if isinstance(asked, Decimal) else _moment(member)
    return comparable is not None and compare(comparable, asked)


def _number(member: int | Decimal | str) -> int | Decimal | None:
    if not isinstance(member, str):
        return member
    return Decimal(member) if is_number(member) else None


def _moment(member: int | Decimal | str) -> datetime | None:
    text = opened_bodies.text_of(member) or ""
    try:
        if _EPOCH.fullmatch(text):
            seconds, milliseconds = int(text[:10]), int(text[10:] or 0)
            return _EPOCH_BEGIN + timedelta(seconds=seconds, milliseconds=milliseconds)
        if (match := _MOMENT.fullmatch(text)) is None:
            return None
        year, month, day, hour, minute, second, offset = match.groups()
        moment = datetime(int(year), int(month), 1) + timedelta(  # noqa: DTZ001 in UTC, as in SQL
            days=int(day) - 1,
            hours=int(hour or 0),
            minutes=int(minute or 0),
            microseconds=round(float(second or 0) * 1_000_000),
        )
        return moment - _offset(offset)
    except OverflowError:  # beyond the year 9999, in UTC
        return datetime.max  # noqa: DTZ901 in UTC, as in SQL


def _offset(spelled: str | None) -> timedelta:
    if spelled is None:
        return timedelta()
    distance = timedelta(hours=int(spelled[1:3]), minutes=int(spelled[4:]))
    return -distance if spelled[0] == "-" else distance


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


_EPOCH_BEGIN = datetime(1970, 1, 1)  # noqa: DTZ001 in UTC, as in SQL
_NUMBER_PATTERN = r"-?[0-9]{1,100}(?:\.[0-9]{1,100})?"
_NUMBER = re.compile(_NUMBER_PATTERN)
_EPOCH_PATTERN = "[1-9][0-9]{9}(?:[0-9]{3})?"
_EPOCH = re.compile(_EPOCH_PATTERN)
# Day 31 of a shorter month is a day of the next one, here and in SQL: no text is an error.
_MOMENT_PATTERN = (
    r"([1-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,6})?)[0-9]*)?"
    r"(?:[Zz]|([+-](?:0[0-9]|1[0-5]):[0-5][0-9]))?)?"
)
_MOMENT = re.compile(_MOMENT_PATTERN)


def _in_sql(pattern: str) -> str:
    """Return a pattern as a literal in a statement, whose colons begin no parameters."""
    return f"'^(?:{pattern})$'".replace(":", "\\:")


_AS_NUMBER = f"""CASE WHEN kind = 'number' OR spelled ~ {_in_sql(_NUMBER_PATTERN)}
                    THEN CAST(spelled AS numeric) END"""
_AS_MOMENT = f"""CASE WHEN spelled ~ {_in_sql(_EPOCH_PATTERN)}
                    THEN timestamp '1970-01-01' + make_interval(
                        secs => CAST(left(spelled, 10) AS double precision)
                                + CAST('0' || substr(spelled, 11) AS double precision) / 1000)
                    ELSE (SELECT timestamp '0001-01-01' + make_interval(
                            months => 12 * (CAST(part[1] AS integer) - 1)
                                      + CAST(part[2] AS integer) - 1,
                            days => CAST(part[3] AS integer) - 1,
                            hours => CAST(coalesce(part[4], '0') AS integer),
                            mins => CAST(coalesce(part[5], '0') AS integer),
                            secs => CAST(coalesce(part[6], '0') AS double precision))
                            - CAST(coalesce(part[7], '0') AS interval)
                        FROM regexp_match(spelled, {_in_sql(_MOMENT_PATTERN)}) AS part) END"""
