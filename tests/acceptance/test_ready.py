"""Readiness over HTTP says what a delivery would be told, and costs next to nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.acceptance.harness import Answer, Stack, request
from tests.conftest import Servers
from tests.support.deliver import order
from tests.support.rows import execute
from tests.support.servers import as_role, database_of
from tests.support.servers.setups import POOLED, POOLERS_ROLE
from tests.support.waiting import until

pytestmark = pytest.mark.not_on(*POOLED, reason=POOLERS_ROLE)


@pytest.fixture
def stack(servers: Servers, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A receiver with a role of its own."""
    with servers.role(used_in=database_url) as role:
        found = Stack(as_role(database_url, role), redis_url, tmp_path)
        found.engine.dispose()
        found.engine = create_engine(parse(database_url), role=Role.PROCESSOR, pool_size=5)
        try:
            execute(found.engine, f"GRANT USAGE ON SCHEMA ingest TO {role}")
            execute(
                found.engine,
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ingest TO {role}",
            )
            found.receiver()
            yield found
        finally:
            found.close()


def ready(stack: Stack) -> Answer:
    return request(stack.ports[0], "GET", "/health/ready")


def role_of(stack: Stack) -> str | None:
    return urlsplit(stack.environment["INGEST_DATABASE_URL"]).username


def connections(stack: Stack) -> int:
    """How many connections the receiver has."""
    count: int = stack.value(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = :role", role=role_of(stack)
    )
    return count


def test_probes_open_no_connection_and_answer_as_deliveries_are_answered(
    servers: Servers, stack: Stack
) -> None:
    until(lambda: connections(stack) == 2, what="the presence is connected, as the writer is")
    servers.execute(f"ALTER ROLE {role_of(stack)} CONNECTION LIMIT 2")
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: ready(stack), range(150)))
    assert {answer.status for answer in answers} == {200}
    assert connections(stack) == 2
    assert "too many" not in stack.logs()
    assert stack.post(order(1)).status == 200


@pytest.mark.parametrize(
    ("breaks", "mends", "reason", "says"),
    [
        (
            "ALTER ROLE {role} SET default_transaction_read_only = on",
            "ALTER ROLE {role} RESET default_transaction_read_only",
            "read_only",
            "read-only",
        ),
        (
            "REVOKE INSERT ON ingest.unadmitted FROM {role}",
            "GRANT INSERT ON ingest.unadmitted TO {role}",
            "privilege_missing",
            "lacks INSERT on ingest.unadmitted",
        ),
        (
            "ALTER TABLE ingest.unadmitted RENAME TO elsewhere",
            "ALTER TABLE ingest.elsewhere RENAME TO unadmitted",
            "not_migrated",
            "ingest migrate",
        ),
    ],
)
def test_it_is_503_with_the_cause_while_deliveries_are_and_200_while_they_are(
    servers: Servers, stack: Stack, breaks: str, mends: str, reason: str, says: str
) -> None:
    database, role = database_of(stack.environment["INGEST_DATABASE_URL"]), role_of(stack)
    both = posts_and_probes(stack)
    assert both() == (200, 200)
    servers.execute(breaks.format(role=role), database=database)
    disconnect(servers, stack)
    until(lambda: both() == (503, 503), what="neither is answered 200")
    # The first cause may be that its connection was ended.
    document = until(lambda: _told(stack, reason), what=f"it says {reason}")
    assert says in document["problem"]
    assert stack.post(order(3)).json["error"] == reason
    servers.execute(mends.format(role=role), database=database)
    until(lambda: both() == (200, 200), what="both are answered 200")
    told = [line for line in stack.logs().splitlines() if f'"reason": "{reason}"' in line]
    # Not each time that it fails: again only if there was another cause in between.
    assert sum("storage_fails" in line for line in told) in (1, 2)


def _told(stack: Stack, reason: str) -> dict[str, str]:
    """What readiness says, once that is the reason."""
    document: dict[str, str] = ready(stack).json
    return document if document["database"] == reason else {}


def posts_and_probes(stack: Stack) -> Callable[[], tuple[int, int]]:
    """What asks for the status of a delivery, and of a probe after it."""
    return lambda: (stack.post(order(2)).status, ready(stack).status)


def disconnect(servers: Servers, stack: Stack) -> None:
    """End the receiver's connections; a role's settings count from the next one on."""
    servers.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role_of(stack)}'"
    )
