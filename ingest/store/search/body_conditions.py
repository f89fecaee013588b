"""What a raw body holds, as conditions in SQL on `events`.

They read bodies: they are for slices of events, and for what indexes have narrowed already. An
encrypted body is read in Python (ingest.store.search.opened_bodies), and the statement is told
which passed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from ingest import strict_json
from ingest.store.search import opened_bodies
from ingest.store.search.opened_bodies import Run

Condition = tuple[str, dict[str, Any]]
"""SQL, and the values that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyTest:
    """A condition that an event meets by its row or by its body."""

    row: str
    """SQL on `event_id`; never null."""
    clear: str
    """SQL on `body`, or on another column of `deliveries`; null only where that is."""
    values: dict[str, Any]
    matches: Callable[[bytes], bool] | None = None
    """The same of a body that was decrypted; None: it is not about bodies."""
    opened: str = ""
    """The name of the parameter that holds the ids of encrypted bodies that passed."""
    excludes: bool = False
    """An event that meets it is not meant. Nor is one whose body cannot be decrypted: nobody knows
    what it holds. A body that was erased holds nothing."""

    @property
    def body(self) -> str:
        """Return SQL on the columns of `deliveries`; null where there is no body."""
        if self.matches is None:
            return self.clear
        opened = f"deliveries.id = ANY(CAST(:{self.opened} AS uuid[]))"
        return f"""CASE WHEN deliveries.body_key IS NULL THEN {self.clear}
                ELSE {"NOT " if self.excludes else ""}{opened} END"""

    def passes(self, body: bytes) -> bool:
        """Return whether a body that was decrypted is one of those in `opened`."""
        return self.matches is not None and self.matches(body) != self.excludes

    @property
    def condition(self) -> Condition:
        """Return the condition on `events`, which fetches each event's body by itself.

        It is a scalar subquery. Of EXISTS the planner makes a join that reads all bodies, once it
        expects more than some thousands of events."""
        body = f"SELECT {self.body} FROM ingest.deliveries WHERE deliveries.id = events.id"
        meets = f"({self.row} OR coalesce(({body}), false))"
        return f"NOT {meets}" if self.excludes else meets, self.values


def contains(needle: str, name: str) -> BodyTest:
    """Return the test for a text in the event id or anywhere in the body, however the sender's JSON
    spells it. The names of its parameters begin with `name`."""
    spellings = _spellings(needle)
    spelled = {f"{name}_{n}": spelling for n, spelling in enumerate(spellings)}
    conditions = " OR ".join(
        f"position(CAST(:{parameter} AS bytea) IN body) > 0" for parameter in spelled
    )
    return BodyTest(
        # Half the time of ILIKE, which was most of a search's.
        row=f"strpos(lower(event_id), lower(CAST(:{name}_text AS text))) > 0",
        clear=f"({conditions})",
        values={f"{name}_text": needle, **spelled, f"{name}_opened": []},
        matches=partial(opened_bodies.contains, spellings),
        opened=f"{name}_opened",
    )


def has_field(
    paths: Sequence[str], value: str, name: str, *, is_beginning: bool = False
) -> BodyTest:
    """`value` under one of the dotted `paths` of the body (`data.items.0.sku`), or one that begins
    with it; the values' names begin with `name`.

    Numbers are compared as numbers (`1250` is `1250.00`), everything else as text, so `123` is
    both the number and the string, and `true` the word; null is no value. A list or an object has
    no text: only the empty beginning finds it, as it finds whatever is there. Not found are numbers
    that are spelled with an exponent. Where jsonb would refuse a body, U+0000 counts as U+FFFD
    (`body_json` in ingest.store.triggers).
    """
    number = None if is_beginning else _NUMBER.fullmatch(value)
    values: dict[str, Any] = {f"{name}_value": f"{escape(value)}%" if is_beginning else value}
    if number:
        values[f"{name}_number"] = value
    tests = []
    for n, path in enumerate(paths):
        values[f"{name}_path_{n}"] = path.split(".")
        at = f"CAST(:{name}_path_{n} AS text[])"
        tests.append(_matches(at, name, value, is_beginning=is_beginning, is_number=bool(number)))
    run = run_of(number.group(1) if number else value)
    absent, more = unlikely(run, name)
    # CASE, because its parts are evaluated in their order, which those of AND need not be.
    parsed = "(SELECT ingest.body_json(body) AS json OFFSET 0)"
    found = f"""CASE WHEN {absent} THEN false
            ELSE (SELECT {" OR ".join(tests)} FROM {parsed} AS parsed) END"""
    return BodyTest(
        row="false",
        clear=found,
        values=values | more | {f"{name}_opened": []},
        matches=partial(
            opened_bodies.has_field,
            [path.split(".") for path in paths],
            value,
            run=run,
            is_beginning=is_beginning,
            number=Decimal(value) if number else None,
        ),
        opened=f"{name}_opened",
    )


def has_phone(paths: Sequence[str], value: str, name: str) -> BodyTest:
    """Return the test for a phone number, however it is written, under one of the dotted `paths` of
    the body. The names of its parameters begin with `name`."""
    values: dict[str, Any] = {f"{name}_value": value}
    tests, absent = [], [f"NOT {_HAS_ESCAPE}"]
    for n, path in enumerate(paths):
        values[f"{name}_path_{n}"] = path.split(".")
        value_sql = f"ingest.normal_phone(json #>> CAST(:{name}_path_{n} AS text[]))"
        tests.append(f"coalesce({value_sql} = ingest.normal_phone(:{name}_value), false)")
        values[f"{name}_last_{n}"] = f'"{path.rpartition(".")[2]}"'.encode()
        absent.append(f"position(CAST(:{name}_last_{n} AS bytea) IN body) = 0")
    parsed = "(SELECT ingest.body_json(body) AS json OFFSET 0)"
    body = f"""CASE WHEN {" AND ".join(absent)} THEN false
            ELSE (SELECT {" OR ".join(tests)} FROM {parsed} AS parsed) END"""
    return BodyTest(
        row="false",
        clear=body,
        values=values | {f"{name}_opened": []},
        matches=partial(opened_bodies.has_phone, [path.split(".") for path in paths], value),
        opened=f"{name}_opened",
    )


def escape(literal: str) -> str:
    """Return a text escaped for LIKE, so that it stands for itself."""
    return literal.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def run_of(value: str) -> Run | None:
    """Return what the bytes of a body hold if it holds `value`; None: nothing can be said. Looking
    for that is five times as fast as parsing. Some senders escape characters that others do not."""
    plain = max(_PLAIN.findall(value), key=len, default="")
    if len(plain) >= min(len(value), _PLAIN_ENOUGH):
        return Run(plain.encode(), may_be_escaped=False) if plain else None
    run = max(_NOT_SHORT_ESCAPED.findall(value), key=len, default="")
    return Run(run.encode(), may_be_escaped=True) if run else None


def unlikely(run: Run | None, name: str) -> Condition:
    """Return the condition that the bytes of a body show that it does not hold a value."""
    if run is None:
        return "false", {}
    absent = f"position(CAST(:{name}_run AS bytea) IN body) = 0"
    is_escaped = _HAS_ESCAPE if run.may_be_escaped else "false"
    return f"({absent} AND NOT {is_escaped})", {f"{name}_run": run.text}


def _matches(path: str, name: str, value: str, *, is_beginning: bool, is_number: bool) -> str:
    if is_beginning and not value:
        return f"coalesce(jsonb_typeof(json #> {path}) <> 'null', false)"
    value_sql = _text_at(path)
    if is_beginning:
        return f"coalesce({value_sql} LIKE :{name}_value, false)"
    as_text = f"coalesce({value_sql} = :{name}_value, false)"
    if not is_number:
        return as_text
    return f"""CASE WHEN jsonb_typeof(json #> {path}) = 'number'
                THEN CAST({value_sql} AS numeric) = CAST(:{name}_number AS numeric)
                ELSE {as_text} END"""


def _text_at(path: str) -> str:
    """Return SQL for the text of a value; null for a list or an object, as in `text_of`."""
    is_one = f"jsonb_typeof(json #> {path}) NOT IN ('array', 'object')"
    return f"CASE WHEN {is_one} THEN json #>> {path} END"


def _spellings(needle: str) -> list[bytes]:
    """Return how JSON may spell a text: escaped as little as possible, or in ASCII (PHP, Python),
    and with slashes escaped as PHP does."""
    escaped = strict_json.canonical(needle)[1:-1]
    least = needle.replace("\\", "\\\\").replace('"', '\\"').encode()
    spelled = (needle.encode(), least, escaped)
    return list(
        dict.fromkeys((*spelled, *(spelling.replace(b"/", b"\\/") for spelling in spelled)))
    )


_PLAIN = re.compile(r"[A-Za-z0-9 ._-]+")
_PLAIN_ENOUGH = 4
# Everything but what JSON also escapes by one letter.
_NOT_SHORT_ESCAPED = re.compile(r'[^"\\/\x00-\x1f]+')
_HAS_ESCAPE = "position(CAST('\\x5c75' AS bytea) IN body) > 0"  # \u
# A number, and the digits that each of its spellings without an exponent begins with.
_NUMBER = re.compile(r"-?((?:0|[1-9][0-9]{0,99})(?:\.[0-9]{0,98}[1-9])?)(?:\.?0{1,99})?")
