"""The limits of a processor: what is in force, how far they are used, and setting others."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ingest import rates
from ingest.console.errors import BadRequest, NotPossible
from ingest.store.pipeline import limit_waits, limits
from ingest.store.pipeline.limits import Bounds, LimitsRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitBounds:
    """Limits. Null: any number."""

    concurrency: int | None
    """How many jobs run at once."""
    rate: str | None
    """How many jobs start in any window of time."""
    key_concurrency: int | None
    """How many jobs of one key run at once."""
    key_rate: str | None
    """How many jobs of one key start in any window of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorLimits:
    """The limits of a processor, and how far they are used now."""

    limit_by: str | None
    """What the key of an event is: keys get equal shares; null: there are none."""
    in_force: LimitBounds
    declared: LimitBounds
    """As its workers declare them."""
    set_by: str | None
    """Who set others than the declared ones; null: they are as declared."""
    set_at: datetime | None
    """When they were set."""
    in_line: int
    """Jobs that wait for a limit, up to 10,000."""
    holding: int
    """Jobs that run now."""
    started: int | None
    """Jobs that started in the window of the rate that ends now; null: there is no rate."""


def read(connection: Connection, processor: str) -> ProcessorLimits | None:
    """Return the limits of a processor; None: it declares none."""
    record = limits.records(connection).get(processor)
    if record is None:
        return None
    use = limit_waits.use(connection, processor)
    rate = record.bounds.rate
    started = sum(count for _, count in rate.of_window(use.log, use.now)) if rate else None
    return ProcessorLimits(
        limit_by=record.limit_by,
        in_force=_bounds(record.bounds),
        declared=_bounds(record.declared),
        set_by=record.overridden_by,
        set_at=record.overridden_at,
        in_line=use.in_line,
        holding=use.running,
        started=started,
    )


def _bounds(bounds: Bounds) -> LimitBounds:
    return LimitBounds(
        concurrency=bounds.concurrency,
        rate=str(bounds.rate) if bounds.rate else None,
        key_concurrency=bounds.key_concurrency,
        key_rate=str(bounds.key_rate) if bounds.key_rate else None,
    )


def checked(values: Mapping[str, int | str | None]) -> dict[str, int | str]:
    """Return those of the limits that are given, by their columns.

    Raises:
        BadRequest: one makes no sense.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return {name: _checked(name, value) for name, value in given.items()}
    except ValueError as error:
        raise BadRequest(f"{str(error).removesuffix('.')}.", reason="bad_limit") from None


def _checked(name: str, value: int | str) -> int | str:
    if name.endswith("rate"):
        return str(rates.parse(str(value)))
    try:
        number = int(value)
    except ValueError:
        raise ValueError(f"{name} is a whole number") from None
    rates.check_concurrency(number, option=name)
    return number


def check_declared(
    processor: str, record: LimitsRecord | None, values: Mapping[str, object]
) -> LimitsRecord:
    """Return the limits of a processor, if they can be set.

    Raises:
        NotPossible: it declares none, or no keys.
    """
    if record is None:
        raise NotPossible(
            f"{processor} declares no limit. Declare one, for example concurrency=1000: from then"
            " on it can be changed here.",
            reason="no_limits",
        )
    if record.limit_by is None and {"key_concurrency", "key_rate"} & values.keys():
        raise NotPossible(
            f"{processor} declares no limit_by: there are no keys to limit.", reason="no_keys"
        )
    return record
