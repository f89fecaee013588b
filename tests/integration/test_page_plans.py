"""However many events are stored, a page or a search reads about as many rows.

The same month is stored once with few events and once with four times as many, a good part of them
unfinished. What is counted are the rows that the plans went through, so the machine's speed does
not matter.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from ingest import settings
from ingest.console import app
from ingest.console.services import event_query, overview
from ingest.console.services.addresses import Addresses
from ingest.store import partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import unfinished
from ingest.store.reports import behind
from ingest.store.retention import report
from ingest.store.search import scan
from tests.conftest import Servers, cloned
from tests.support import console_paths
from tests.support.asgi import Browser
from tests.support.month import DAYS, Month
from tests.support.month.grouped import group_failures, sum_up
from tests.support.signing import SECRET

FEW = 10_000
TIMES = 4
SLACK = 3_000
"""Rows by which a page may differ besides; of each kind of unfinished jobs there are 6,000 more."""
_COUNTS = ("activity", "activity_sums")
MOST_COUNTS = 30_000
"""Rows of these that a page may read: an hour by the minute is 20,000. A week would be 120,000 in
each statement, if it were not read from sums."""
_ALIKE = (*_COUNTS, "backlog_samples", "refusal_counts")
"""Tables of which both months have as many rows, read from end to end or by an index."""
# Eight in ten jobs are not done.
_UNFINISHED = """
    WITH numbered AS (
        SELECT id, row_number() OVER (ORDER BY id) % 10 AS place FROM ingest.jobs
        WHERE state = 'succeeded'
    )
    UPDATE ingest.jobs SET
        state = CASE place WHEN 1 THEN 'dead' WHEN 2 THEN 'dead' WHEN 3 THEN 'retrying'
                           WHEN 4 THEN 'retrying' WHEN 5 THEN 'pending' WHEN 6 THEN 'pending'
                           ELSE 'running' END,
        next_attempt_at = CASE WHEN place BETWEEN 3 AND 6 THEN now() + interval '1 day' END,
        lease_until = CASE WHEN place > 6 THEN now() + interval '1 day' END,
        finished_at = CASE WHEN place < 3 THEN now() END,
        failures = 1
    FROM numbered WHERE numbered.id = jobs.id AND place BETWEEN 1 AND 8
"""


@contextmanager
def month(servers: Servers, template: str, count: int) -> Iterator[str]:
    """The address of a database with a month of events, its statistics up to date."""
    with cloned(servers, template) as url:
        administrator = servers.as_administrator(url)
        engine = create_engine(parse(administrator), role=Role.MIGRATION)
        with engine.begin() as connection:
            first = datetime.now(UTC).date() - timedelta(days=DAYS)
            partitions.ensure(connection, today=first, days_ahead=DAYS + 1)
        engine.dispose()
        stored = Month.until(datetime.now(UTC), count)
        with psycopg.connect(administrator, autocommit=True) as driver:
            stored.fill(driver, 0, count)
            driver.execute(_UNFINISHED)
            stored.surround(driver)
            stored.bring_up_to_now(driver)
            driver.execute("VACUUM (ANALYZE)")
        yield url


class Rows:
    """Counts the rows that statements go through, on every engine."""

    def __init__(self) -> None:
        self.read = 0.0
        self.counts = 0.0
        self.most: tuple[float, str] = (0.0, "")

    def explain(
        self, _connection: Any, cursor: Any, sql: str, values: Any, _context: Any, _many: bool
    ) -> None:
        """Take a statement's plan, in a savepoint that is undone."""
        if sql.lstrip().startswith(("DECLARE", "CLOSE", "FETCH", "EXPLAIN")):
            return
        cursor.execute("SAVEPOINT explained")
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {sql}", values)
        ((plan,),) = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT explained")
        self.counts += _rows_read(plan[0]["Plan"], lambda table: table in _COUNTS)
        self._add(_rows_read(plan[0]["Plan"], lambda table: table not in _ALIKE), sql)

    def fetched(
        self, _connection: Any, cursor: Any, sql: str, _values: Any, _context: Any, _many: bool
    ) -> None:
        """Count what came from a cursor."""
        if sql.startswith("FETCH"):
            self._add(cursor.rowcount, sql)

    def _add(self, rows: float, sql: str) -> None:
        self.read += rows
        self.most = max(self.most, (rows, sql))


def _rows_read(plan: Mapping[str, Any], is_meant: Callable[[str], bool]) -> float:
    """Rows that were read from the tables that are meant: kept, or thrown away."""
    read = sum((_rows_read(part, is_meant) for part in plan.get("Plans", ())), 0.0)
    if "Relation Name" not in plan or not is_meant(plan["Relation Name"]):
        return read
    removed = sum(number for name, number in plan.items() if name.startswith("Rows Removed by"))
    return float(read + (plan["Actual Rows"] + removed) * plan["Actual Loops"])


@pytest.fixture(scope="module")
def pages(servers: Servers, template: str) -> list[tuple[str, Rows, Rows]]:
    """Each page with what it read of few events, and of many."""
    with pytest.MonkeyPatch.context() as patch:
        _leave_no_time(patch)
        # Bounds that these few events reach too.
        patch.setattr(behind, "EXAMINED", 500)
        patch.setattr(unfinished, "MOST_DEAD", 500)
        patch.setattr(overview, "MOST_ON_EACH_PAGE", 50)
        patch.setattr(report, "SMALL_BYTES", 10_000)  # no table that has rows
        few, many = (
            list(_read(servers, template, servers.redis_url, count)) for count in (FEW, TIMES * FEW)
        )
    return [(path, rows, more) for (path, rows), (_, more) in zip(few, many, strict=True)]


def _leave_no_time(patch: pytest.MonkeyPatch) -> None:
    """Have no slice after the first, and the overview kept from page to page, so that what is read
    does not depend on the machine's speed. (What raises when its time is over is no budget.)"""
    budgets = [
        (module, constant)
        for name, module in sorted(sys.modules.items())
        if name.startswith(("ingest.console.", "ingest.store."))
        for constant in vars(module)
        if constant.endswith("BUDGET_S")
    ]
    assert len(budgets) >= 10, budgets
    for module, constant in budgets:
        patch.setattr(module, constant, 0.0)
    patch.setattr(event_query, "_MIN_COUNT_S", 0.0)
    patch.setattr(scan, "_SLICE_S", 0.0)
    patch.setattr(overview, "_CACHED_S", 3600.0)


def _read(
    servers: Servers, template: str, redis_url: str, count: int
) -> Iterator[tuple[str, Rows]]:
    with month(servers, template, count) as url, _console(url, redis_url) as browser:
        engine = create_engine(parse(url), role=Role.OPERATOR)
        group_failures(url)
        sum_up(url)
        with engine.connect() as connection:
            about = console_paths.stored(connection)
        paths = list(console_paths.paths(about, Addresses(engine, random=os.urandom).path))
        engine.dispose()
        for path in paths:
            with _counted() as rows:
                answer = browser.get(path)
            assert answer.status == 200, (path, answer.status, answer.text[:300])
            yield path, rows


@contextmanager
def _console(url: str, redis_url: str) -> Iterator[Browser]:
    engines: list[Engine] = []

    def kept(*arguments: Any, **options: Any) -> Engine:
        engines.append(create_engine(*arguments, **options))
        return engines[-1]

    sources = {slug: {"secrets": SECRET} for slug in ("awalchat", "whatsapp")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "create_engine", kept)
        given = settings.load(database_url=url, redis_url=redis_url, sources=sources)
        yield Browser(app=app.create_app(given))
    for engine in engines:
        engine.dispose()


@contextmanager
def _counted() -> Iterator[Rows]:
    rows = Rows()
    event.listen(Engine, "before_cursor_execute", rows.explain)
    event.listen(Engine, "after_cursor_execute", rows.fetched)
    try:
        yield rows
    finally:
        event.remove(Engine, "before_cursor_execute", rows.explain)
        event.remove(Engine, "after_cursor_execute", rows.fetched)


def test_a_page_reads_as_many_rows_whatever_is_stored(
    pages: list[tuple[str, Rows, Rows]],
) -> None:
    grown = {
        path: (few.read, many.read, many.most)
        for path, few, many in pages
        if many.read > 1.5 * few.read + SLACK
    }
    assert not grown


def test_a_page_that_looks_far_back_reads_sums(pages: list[tuple[str, Rows, Rows]]) -> None:
    read = {path: more.counts for path, _, more in pages if more.counts}
    assert len(read) > 20
    assert {path: rows for path, rows in read.items() if rows > MOST_COUNTS} == {}
