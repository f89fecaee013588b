"""The whole pipeline in a database that an application has too, under a schema of any name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Stack
from tests.conftest import Servers
from tests.support.deliver import order
from tests.support.rows import execute
from tests.support.waiting import until

APPLICATION = """
    CREATE SCHEMA ingest;
    CREATE TABLE ingest.events (note text);
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('0001');
    CREATE TABLE orders (order_id bigint PRIMARY KEY, total numeric);
    CREATE TABLE events (note text);
    CREATE TABLE jobs (note text);
"""
PROCESSORS = '''
from sqlalchemy import text

from workers import processor


@processor("order.created", name="shop")
def shop(event, db):
    """Writes to the application's tables, by the names that the application uses."""
    db.execute(
        text("INSERT INTO orders (order_id, total) VALUES (:id, :total)"),
        {"id": event.data["order_id"], "total": event.data["total"]},
    )
    db.execute(text("INSERT INTO ingest.events (note) VALUES ('of the application')"))
'''


@pytest.fixture
def make_shared(
    servers: Servers, redis_url: str, tmp_path: Path
) -> Iterator[Callable[[str], Stack]]:
    """Makes a stack beside an application that has even a schema `ingest`."""
    made: list[Stack] = []

    with servers.database("shared") as name:

        def make(schema: str) -> Stack:
            url = servers.database_url(name)
            (tmp_path / "shop_of_the_application.py").write_text(PROCESSORS)
            stack = Stack(
                url,
                redis_url,
                tmp_path,
                database_schema=schema,
                processors="shop_of_the_application",
            )
            made.append(stack)
            execute(stack.engine, APPLICATION)
            return stack

        yield make
        for stack in made:
            stack.close()


def test_everything_works_beside_an_application_that_uses_the_same_names(
    make_shared: Callable[[str], Stack],
) -> None:
    stack = make_shared("hooks")
    assert "Migrated from nothing" in stack.command("migrate")
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.console()
    answers = stack.post_all([order(number, total=number) for number in range(20)] * 2)
    assert {answer.status for answer in answers} == {200}

    def idle() -> bool:
        counted = stack.stats()
        waiting = sum(counted["jobs"][state] for state in ("pending", "running", "retrying"))
        return counted["events"]["total"] == 20 and not waiting

    until(idle, what="all is worked on")
    stats = stack.stats()
    assert stats.pop("backlog")["total"] == 0
    assert stats == {
        "deliveries": {"accepted": 40, "rejected": 0, "duplicates": 20, "conflicts": 0},
        "events": {"total": 20, "unhandled": 0},
        "jobs": {"pending": 0, "running": 0, "retrying": 0, "succeeded": 40, "dead": 0},
    }
    assert stack.value("SELECT count(*) FROM public.orders") == 20
    assert stack.value("SELECT count(*) FROM hooks.orders") == 20
    assert stack.value("SELECT count(*) FROM ingest.events") == 20
    assert stack.value("SELECT version_num FROM public.alembic_version") == "0001"
    assert stack.value("SELECT count(*) FROM public.events") == 0
    listed = stack.command("events", "list", "--search", "order_id", "--limit", "1", "--json")
    (event,) = (json.loads(line) for line in listed.splitlines())
    assert stack.show(event["id"])["body"]
    for page in (
        "/events?q=data.order_id:7",
        "/",
        "/events?q=790",
        "/events?q=order:7",
        f"/events/{event['id']}",
        "/entities/order/7",
        "/failures",
        "/failures?state=all",
        "/refusals",
        "/refusals?kind=rejected",
        "/processors",
        "/processors/orders",
        "/sources",
        "/alerts",
        "/retention",
        "/erasures",
        "/live",
    ):
        assert stack.ask(page).status == 200, page
    assert "1 job" in stack.command("replay", event["id"], "--processor", "orders")
