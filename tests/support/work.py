"""How much work PostgreSQL does for a statement, counted rather than timed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, event

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Work:
    """What a statement went through."""

    rows: float
    """Rows that its plan's nodes returned or threw away, all loops together."""
    blocks: int
    """Blocks of tables and indexes that it looked at, those of its triggers apart."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What was read from the tables, by triggers and foreign keys too."""

    scanned: int
    """Rows that were read from end to end."""
    searches: int
    """Searches of an index."""


def explained(connection: Connection, run: Callable[[Connection], Result]) -> tuple[Result, Work]:
    """Run what executes statements; each that reads or writes is explained first, in a savepoint
    that is undone."""
    work: list[Work] = []

    def explain(
        _connection: Any, cursor: Any, statement: str, values: Any, _context: Any, _many: bool
    ) -> None:
        if statement.startswith("SET "):
            return
        cursor.execute("SAVEPOINT explained")
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) {statement}", values)
        ((plan,),) = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT explained")
        work.append(of_plan(plan[0]["Plan"]))

    event.listen(connection, "before_cursor_execute", explain)
    try:
        result = run(connection)
    finally:
        event.remove(connection, "before_cursor_execute", explain)
    return result, Work(sum(part.rows for part in work), sum(part.blocks for part in work))


def of_plan(plan: Mapping[str, Any]) -> Work:
    """Return the work that an analyzed plan tells of."""
    blocks = plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
    return Work(rows=sum(map(_rows, _nodes(plan))), blocks=blocks)


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _rows(node: Mapping[str, Any]) -> float:
    removed = sum(number for name, number in node.items() if name.startswith("Rows Removed by"))
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


def reads(connection: Connection, run: Callable[[Connection], Result]) -> tuple[Result, Reads]:
    """Run what executes statements in the transaction that is open, with the plans that it has."""
    before = _reads(connection)
    result = run(connection)
    after = _reads(connection)
    return result, Reads(after.scanned - before.scanned, after.searches - before.searches)


def _reads(connection: Connection) -> Reads:
    row = connection.exec_driver_sql(
        "SELECT sum(seq_tup_read), sum(idx_scan) FROM pg_stat_xact_user_tables"
    ).one()
    return Reads(*map(int, row))
