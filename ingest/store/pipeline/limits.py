"""The limits of processors: as declared by workers, and as set by operators at run time.

How many jobs of a processor run at once and how many start in a time, over all workers; and the
same for each key. What waits for that is in `pipeline.limited_line`, and `pipeline.pulling` takes
from it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from ingest import rates
from ingest.rates import Rate
from ingest.store.sql import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many jobs run at once, and how many start in a time. None: any number."""

    concurrency: int | None = None
    rate: Rate | None = None
    key_concurrency: int | None = None
    key_rate: Rate | None = None

    def stored(self) -> dict[str, int | str | None]:
        """Return the bounds by their columns."""
        return {
            name: str(value) if isinstance(value, Rate) else value
            for name, value in ((one.name, getattr(self, one.name)) for one in fields(self))
        }

    def in_words(self) -> str:
        """Return what is limited of all jobs: `20 run at once, 50/s start`."""
        return _in_words(self.concurrency, self.rate)

    def of_key_in_words(self) -> str:
        """Return what is limited of the jobs of one key, likewise."""
        return _in_words(self.key_concurrency, self.key_rate)


def _in_words(concurrency: int | None, rate: Rate | None) -> str:
    at_once = f"{concurrency:,} run at once" if concurrency is not None else None
    return ", ".join(filter(None, (at_once, f"{rate} start" if rate else None)))


NAMES = tuple(one.name for one in fields(Bounds))
UNBOUNDED = Bounds()


def bounds_of(stored: Mapping[str, Any]) -> Bounds:
    """Return the bounds that columns hold, or an override."""
    return Bounds(
        concurrency=stored.get("concurrency"),
        rate=_rate(stored.get("rate")),
        key_concurrency=stored.get("key_concurrency"),
        key_rate=_rate(stored.get("key_rate")),
    )


def _rate(stored: str | None) -> Rate | None:
    return None if stored is None else rates.parse(stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredLimits:
    """The limits of a processor as a worker declares them."""

    processor: str
    limit_by: str | None
    """What keys are read from, for people; None: there are no keys."""
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsRecord:
    """The limits of a processor."""

    processor: str
    limit_by: str | None
    declared: Bounds
    """As a worker registered them last."""
    override: Mapping[str, Any]
    """Those that an operator has set instead."""
    overridden_at: datetime | None
    overridden_by: str | None

    @property
    def bounds(self) -> Bounds:
        """What is in force."""
        return bounds_of({**self.declared.stored(), **self.override})


COLUMNS = (
    "limits.processor, limits.declared, limits.limit_by, limits.concurrency, limits.rate,"
    " limits.key_concurrency, limits.key_rate, limits.override"
)


def in_force(row: Row[Any]) -> Bounds:
    """Return the bounds in force of a row of `COLUMNS`; those of a processor whose last release
    has no limits are none."""
    if not row.declared:
        return UNBOUNDED
    return bounds_of({name: getattr(row, name) for name in NAMES} | (row.override or {}))


_REGISTER = statement(
    """
    INSERT INTO ingest.limits (processor, declared, limit_by, concurrency, rate, key_concurrency,
                               key_rate)
    VALUES (:processor, true, :limit_by, :concurrency, :rate, :key_concurrency, :key_rate)
    ON CONFLICT (processor) DO UPDATE
    SET declared = true, limit_by = excluded.limit_by, concurrency = excluded.concurrency,
        rate = excluded.rate, key_concurrency = excluded.key_concurrency,
        key_rate = excluded.key_rate
    WHERE NOT limits.declared
       OR (limits.limit_by, limits.concurrency, limits.rate, limits.key_concurrency,
           limits.key_rate) IS DISTINCT FROM
          (excluded.limit_by, excluded.concurrency, excluded.rate, excluded.key_concurrency,
           excluded.key_rate)
    RETURNING processor
    """
)
_FIRST = statement(
    """
    INSERT INTO ingest.limits (processor, declared, limit_by, concurrency, rate, key_concurrency,
                               key_rate)
    VALUES (:processor, true, :limit_by, :concurrency, :rate, :key_concurrency, :key_rate)
    ON CONFLICT (processor) DO NOTHING
    """
)
_NOT_DECLARED = statement(
    """
    UPDATE ingest.limits SET declared = false
    WHERE processor = ANY(ARRAY(
        SELECT processor FROM ingest.limits
        WHERE processor = ANY(CAST(:processors AS text[])) AND declared
        ORDER BY processor FOR UPDATE
    ))
    """
)


def register(
    connection: Connection, declared: Sequence[DeclaredLimits], others: Sequence[str]
) -> None:
    """Record the limits of a worker's processors; `others` of its processors have none.

    What an operator has set stays.
    """
    for limits in sorted(declared, key=lambda limits: limits.processor):
        if connection.execute(_REGISTER, _parameters(limits)).first() is not None:
            look_again(connection, limits.processor)
    connection.execute(_NOT_DECLARED, {"processors": list(others)})


def register_once(connection: Connection, declared: DeclaredLimits) -> None:
    """Record the limits of a processor of which none are known."""
    connection.execute(_FIRST, _parameters(declared))


def _parameters(declared: DeclaredLimits) -> dict[str, Any]:
    return {
        "processor": declared.processor,
        "limit_by": declared.limit_by,
        **declared.bounds.stored(),
    }


# Those that wait for a limit of their own may not have to any more.
_LOOK_AGAIN = statement(
    """
    UPDATE ingest.limited_keys SET held_until = statement_timestamp()
    WHERE processor = :processor AND waiting AND held_until > statement_timestamp()
    """
)


def look_again(connection: Connection, processor: str) -> None:
    """Have the next pull look anew whether keys are at a limit of theirs.

    The caller has locked the row of the limits.
    """
    connection.execute(_LOOK_AGAIN, {"processor": processor})


_RECORDS = statement(
    """
    SELECT processor, limit_by, concurrency, rate, key_concurrency, key_rate, override,
           overridden_at, overridden_by
    FROM ingest.limits WHERE declared
    ORDER BY processor
    """
)


def records(connection: Connection) -> dict[str, LimitsRecord]:
    """Return the limits of the processors that declare any, by processor."""
    return {row.processor: _record(row) for row in connection.execute(_RECORDS)}


def _record(row: Row[Any]) -> LimitsRecord:
    return LimitsRecord(
        processor=row.processor,
        limit_by=row.limit_by,
        declared=bounds_of({name: getattr(row, name) for name in NAMES}),
        override=row.override or {},
        overridden_at=row.overridden_at,
        overridden_by=row.overridden_by,
    )


_ONE = statement(
    """
    SELECT processor, limit_by, concurrency, rate, key_concurrency, key_rate, override,
           overridden_at, overridden_by
    FROM ingest.limits WHERE processor = :processor AND declared
    FOR UPDATE
    """
)
_SET = statement(
    """
    UPDATE ingest.limits
    SET override = CAST(:override AS jsonb), overridden_at = :at, overridden_by = :by
    WHERE processor = :processor
    """
)


def lock(connection: Connection, processor: str) -> LimitsRecord | None:
    """Return the limits of a processor that declares any, locked until the transaction ends."""
    row = connection.execute(_ONE, {"processor": processor}).one_or_none()
    return None if row is None else _record(row)


def override(
    connection: Connection, processor: str, bounds: Mapping[str, Any], *, by: str, at: datetime
) -> None:
    """Set bounds by their columns in place of the declared ones; none: all are as declared.

    The caller has locked the row.
    """
    connection.execute(
        _SET,
        {
            "processor": processor,
            "override": json.dumps(dict(bounds)) if bounds else None,
            "at": at if bounds else None,
            "by": by if bounds else None,
        },
    )
    look_again(connection, processor)
