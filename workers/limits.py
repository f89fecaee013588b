"""What a processor's declaration says of its limits."""

from dataclasses import dataclass

from ingest import rates
from ingest.store.pipeline.limits import Bounds
from workers.event_key import EventKey, KeyedBy, key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many of a processor's jobs run at once, and how many start in a time."""

    bounds: Bounds
    """As declared; an operator may have set others."""
    key: EventKey | None
    """Whose share a job takes, and what the limits of a key are for; None: all share one."""


def limits_of(
    *,
    concurrency: int | None,
    rate: str | None,
    limit_by: KeyedBy | None,
    key_concurrency: int | None,
    key_rate: str | None,
) -> Limits | None:
    """Return the limits that a declaration asks for; None: it asks for none.

    Raises:
        TypeError, ValueError: they make no sense.
    """
    if limit_by is None:
        for option, value in {"key_concurrency": key_concurrency, "key_rate": key_rate}.items():
            if value is not None:
                raise ValueError(f"{option} needs limit_by: what is the key?")
    if (concurrency, rate, limit_by) == (None, None, None):
        return None
    return Limits(
        bounds=Bounds(
            concurrency=_concurrency("concurrency", concurrency),
            rate=_rate("rate", rate),
            key_concurrency=_concurrency("key_concurrency", key_concurrency),
            key_rate=_rate("key_rate", key_rate),
        ),
        key=None if limit_by is None else key_of(limit_by, option="limit_by"),
    )


def _concurrency(option: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{option} is a whole number")
    rates.check_concurrency(value, option=option)
    return value


def _rate(option: str, value: object) -> rates.Rate | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{option} is a text: 50/s, 1000/m, 500/h or 10/5s")
    try:
        return rates.parse(value)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
