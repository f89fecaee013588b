"""Addresses of the console: ids in paths, query parameters, and links."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from starlette.convertors import IntegerConvertor, register_url_convertor

from ingest.query import spell, spell_time
from ingest.store.search.filters import EventFilter

NUMBER = "number"
"""The name of the convertor, as in `/jobs/{id:number}`."""
LARGEST_NUMBER = 10**18 - 1
"""It fits PostgreSQL's bigint, and no row has a larger id."""
_MAX_DIGITS = 18

BetweenTimes = Callable[[datetime, datetime], str]
"""Returns the address of what was received from a time until another."""


class NumberConvertor(IntegerConvertor):
    """Accept numbers that can be ids. Python refuses to read one of more than 4,300 digits."""

    regex = f"[0-9]{{1,{_MAX_DIGITS}}}"


def register() -> None:
    """Let the paths of routes use the convertor."""
    register_url_convertor(NUMBER, NumberConvertor())


def parse_uuid(text: str | None) -> UUID | None:
    """Return the UUID that a text spells; None: it spells none."""
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def parse_number(text: str | None) -> int | None:
    """Return the number that a text spells; None: it spells none that can be an id."""
    is_number = text and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if text and is_number else None


def link(path: str, **parameters: object) -> str:
    """Return a path with the parameters that are not empty."""
    present = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(present, quote_via=quote)}" if present else path


def processor_path(name: str) -> str:
    """Return the address of a processor's page."""
    return f"/processors/{quote(name)}"


def search_for(**conditions: Any) -> str:
    """Return the search that means these fields of an EventFilter."""
    return spell(EventFilter(**conditions))


def events_link(**conditions: Any) -> str:
    """Return the link to the events that match these fields of an EventFilter."""
    return link("/events", q=search_for(**conditions))


def events_between(**conditions: Any) -> BetweenTimes:
    """Return what makes links to the events that match these fields and were received from a time
    until another."""
    return between(
        lambda since, until: events_link(since=since, until=until, **conditions), spell_time
    )


def between(link: BetweenTimes, spelled: Callable[[datetime], str]) -> BetweenTimes:
    """Return what makes the same links as `link`, which spells times by `spelled`. A chart has
    hundreds of them, so what they share is made once."""

    @cache  # each moment ends a bar and begins the next, of every series
    def quoted(moment: datetime) -> str:
        return quote(spelled(moment), safe="")

    since, until = datetime(1, 1, 1, tzinfo=UTC), datetime(2, 1, 1, tzinfo=UTC)
    before, _, rest = link(since, until).partition(quoted(since))
    middle, _, after = rest.partition(quoted(until))
    return lambda since, until: f"{before}{quoted(since)}{middle}{quoted(until)}{after}"
