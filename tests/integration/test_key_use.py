"""Who uses which key, from what receivers counted."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from ingest.store.reports import key_use
from ingest.store.reports.key_use import KeyUse
from tests.support.rows import execute

NOW = datetime(2026, 1, 20, 11, 0, 30, tzinfo=UTC)


def count(engine: Engine, label: str, *, ago: timedelta, deliveries: int) -> None:
    execute(
        engine,
        "INSERT INTO activity (minute, what, label, bucket, slot, count)"
        " VALUES (date_trunc('minute', CAST(:at AS timestamptz)), 'key', :label, 0, 3, :count)",
        at=NOW - ago,
        label=label,
        count=deliveries,
    )


def test_uses_are_told_with_their_share_of_the_source(engine: Engine) -> None:
    for ago, old, new in ((timedelta(minutes=5), 1, 3), (timedelta(hours=5), 20, 0)):
        count(engine, "shop 01d01d", ago=ago, deliveries=old)
        count(engine, "shop 4e34e3", ago=ago, deliveries=new)
    count(engine, "shop 90490a", ago=timedelta(days=8), deliveries=16)
    count(engine, "shop f09a11", ago=timedelta(days=31), deliveries=1)
    count(engine, "other 01d01d", ago=timedelta(days=2), deliveries=7)
    keys = {"shop": ("4e34e3", "01d01d", "f09a11"), "other": ("01d01d",)}
    with engine.connect() as connection:
        uses = key_use.read(connection, keys, now=NOW)
    assert [(use.source, use.key_id, use.is_configured) for use in uses] == [
        ("shop", "4e34e3", True),
        ("shop", "01d01d", True),
        ("shop", "f09a11", True),
        ("other", "01d01d", True),
        ("shop", "90490a", False),
    ]
    assert [spans(use) for use in uses] == [
        ((3, 0.75), (3, 0.125), (3, 0.075)),
        ((1, 0.25), (21, 0.875), (21, 0.525)),
        ((0, 0.0), (0, 0.0), (0, 0.0)),
        ((0, 0.0), (0, 0.0), (7, 1.0)),
        ((0, 0.0), (0, 0.0), (16, 0.4)),
    ]
    assert uses[1].last_used_at == datetime(2026, 1, 20, 10, 55, tzinfo=UTC)
    assert uses[2].last_used_at is None


def test_a_source_whose_last_key_was_used_days_ago_is_told_that_key(engine: Engine) -> None:
    count(engine, "shop 4e34e3", ago=timedelta(minutes=5), deliveries=3)
    count(engine, "shop 90490a", ago=timedelta(days=8), deliveries=16)
    count(engine, "other 01d01d", ago=timedelta(days=2), deliveries=7)
    keys = {"shop": ("4e34e3", "f09a11"), "other": ("f09a11",)}
    with engine.connect() as connection:
        uses = key_use.last_uses(connection, keys, {"shop", "other"}, now=NOW)
        of_shop = key_use.last_uses(connection, keys, {"shop"}, now=NOW)
    assert {(use.source, use.key_id, use.is_configured, use.last_used_at) for use in uses} == {
        ("shop", "4e34e3", True, datetime(2026, 1, 20, 10, 55, tzinfo=UTC)),
        ("shop", "f09a11", True, None),
        ("shop", "90490a", False, datetime(2026, 1, 12, 11, tzinfo=UTC)),
        ("other", "f09a11", True, None),
        ("other", "01d01d", False, datetime(2026, 1, 18, 11, tzinfo=UTC)),
    }
    assert [(use.key_id, use.is_configured) for use in of_shop] == [
        ("4e34e3", True),
        ("f09a11", True),
    ], "the last day tells the source's last key, so what was used before is not read"


def spans(use: KeyUse) -> tuple[tuple[int, float], ...]:
    return tuple((part.deliveries, part.share) for part in (use.hour, use.day, use.month))
