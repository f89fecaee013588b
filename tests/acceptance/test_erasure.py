"""After an erasure no file holds the number: of PostgreSQL, of the logs, of Redis."""

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.acceptance.harness import request
from tests.acceptance.up import Up
from tests.integration.test_erasure import OMAR, SARA, about_omar, about_sara, message
from tests.support.deliver import body
from tests.support.signing import signed_headers
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="`up` reads /proc")

PROCESSORS = """
from workers import processor

@processor("order.failed", max_attempts=1)
def fail(event, db):
    raise ValueError(f"cannot charge {event.data['customer']}")
"""


def test_after_an_erasure_no_file_holds_the_number(
    make_up: Callable[..., Up], tmp_path: Path
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "of_the_user.py").write_text(PROCESSORS)
    up = make_up(PYTHONPATH=str(tmp_path / "shop"), INGEST_PROCESSORS="of_the_user")
    up.wait_until_ready()
    secret = (up.folder / ".ingest" / "awalchat.secret").read_text().strip()
    failing = body("order.failed", {"order_id": 1, "customer": "+966 51 234 5678"})
    # Large, and nothing that could be compressed, so that it is stored out of line as it is; and
    # many, so that statistics hold the number.
    large = message(SARA, 7, "large", body=base64.b64encode(os.urandom(30_000)).decode() + SARA)
    many = [message(SARA, 7, f"{n:05}") for n in range(60)]
    for raw in [*about_omar(), *about_sara(), failing, large, *many]:
        _post(up, secret, raw)
    _post(up, "another secret, not this one", message(SARA, 7, "again"), status=401)
    _post(up, secret, f"not JSON, {SARA}".encode(), status=400)
    until(
        lambda: up.stats()["jobs"]["dead"] == 1 and _is_idle(up),
        what="all is worked on",
        timeout_s=300,
    )
    up.command("replay", "--type", f"*{SARA}*", "--reason", f"for {SARA}")
    _execute(up, "ANALYZE")
    _settle(up)
    # The control: the search finds it, in tables, their indexes and the statistics.
    before = _holding(up, SARA)
    assert len(before) > 10
    assert all("postgres" in path.parts for path in before)

    erased = json.loads(up.command("erase", "--phone", "0096651 234 5678", "--yes", "--json"))
    assert erased["sources"] == {"awalchat": 71}
    _post(up, secret, about_sara()[0])  # a late duplicate
    until(lambda: up.stats()["deliveries"]["duplicates"] == 1, what="it is admitted")
    for statement in erased["vacuum"]:
        _execute(up, statement)
    statistics = "VACUUM FULL pg_catalog.pg_statistic;"
    assert statistics in erased["vacuum"]

    def is_gone() -> bool:
        """What a transaction of another's can still see is kept, for instance autovacuum's."""
        _settle(up)
        if _holding(up, SARA):
            _execute(up, statistics)
            return False
        return True

    until(is_gone, what="no file holds the number")
    assert _holding(up, OMAR)
    assert up.command("erase", "--phone", OMAR, "--dry-run")
    event = erased["events"][0]
    assert "erased" in up.command("replay", event, "--all-jobs")


def _post(up: Up, secret: str, raw: bytes, *, status: int = 200) -> None:
    headers = signed_headers(raw, secret=secret)
    assert request(up.port, "POST", "/webhooks/awalchat", raw, headers).status == status


def _is_idle(up: Up) -> bool:
    stats = up.stats()
    waiting = sum(stats["jobs"][state] for state in ("pending", "running", "retrying"))
    return not waiting and stats["events"]["total"] >= 74


def _addresses(up: Up) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((up.folder / ".ingest" / "up.json").read_text())
    return found


def _execute(up: Up, statement: str) -> None:
    url = _addresses(up)["database_url"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _settle(up: Up) -> None:
    """Write everything to files, and recycle the write-ahead log."""
    _execute(up, "SELECT pg_switch_wal()")
    for _ in range(2):
        _execute(up, "CHECKPOINT")
    with redis.Redis.from_url(_addresses(up)["redis_url"]) as client:
        client.save()


def _holding(up: Up, number: str) -> list[Path]:
    """Return the files that hold a number in any spelling, but for the write-ahead log."""
    home = up.folder / ".ingest"
    files = [path for path in home.rglob("*") if path.is_file() and "pg_wal" not in path.parts]
    return [path for path in (*files, up.folder / "output.txt") if _holds(path, number)]


def _holds(path: Path, number: str) -> bool:
    content = content_of(path)
    return any(spelling in content for spelling in _spellings(number))


def content_of(path: Path) -> bytes:
    """Return what a file holds; nothing, if it is gone meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _spellings(number: str) -> list[bytes]:
    """Return a number as it is sent here, and what its base64 is within a message id."""
    encoded = [base64.b64encode(b"?" * before + number.encode())[2:-4] for before in range(3)]
    groups = [number[:3], number[3:5], number[5:8], number[8:]]
    return [*encoded, *(mark.join(groups).encode() for mark in ("", " ", "-"))]
