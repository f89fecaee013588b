"""The release before is upgraded under load: its processes, then the schema, then ours."""

import io
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack, request
from tests.support.deliver import order
from tests.support.rows import execute
from tests.support.servers.setups import POOLED
from tests.support.signing import signed_headers
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
FIRST_OF_OURS = "migrations/versions/0005_own_schema.py"
"""The file that the release before does not have yet."""
SENDERS = 4


def git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the release before, as git has it."""
    folder = tmp_path_factory.mktemp("before")
    try:
        added = git("log", "--diff-filter=A", "--format=%H", "--", FIRST_OF_OURS).decode().split()
        archive = git("archive", f"{added[-1]}^", "ingest", "workers", "migrations")
    except (OSError, IndexError, subprocess.CalledProcessError):
        if os.environ.get("CI"):
            raise
        pytest.skip("needs a clone with its history")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


class Senders:
    """Posts orders until told to stop; each is sent again until it is answered 200."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._stop = threading.Event()
        self._numbers = iter(range(10**6))
        self._lock = threading.Lock()
        self.acknowledged: list[int] = []
        self.slowest_s = 0.0
        self.refused = 0

    def run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
            while not self._is_taken(number):
                time.sleep(0.05)
            self.acknowledged.append(number)

    def _is_taken(self, number: int) -> bool:
        body = order(number, total=number)
        began = time.monotonic()
        try:
            answer = request(self._port(), "POST", "/webhooks/awalchat", body, signed_headers(body))
        except OSError:
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.refused += answer.status != 200
        return answer.status == 200

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def installed(make_database: Callable[..., str]) -> str:
    """The address of an empty database, whose search path is PostgreSQL's own."""
    return make_database()


@pytest.mark.not_on(
    *POOLED, reason="the release before needs start-up options, which a pooler refuses"
)
@pytest.mark.not_on("external", reason="the release before uses keys of the other application")
def test_an_upgrade_under_load_loses_nothing_and_does_nothing_twice(
    installed: str,
    redis_url: str,
    tmp_path: Path,
    release_before: Path,
    record_property: Callable[[str, object], None],
) -> None:
    with ExitStack() as made:
        _upgrade(made, installed, redis_url, tmp_path, release_before, record_property)


def _upgrade(
    made: ExitStack,
    installed: str,
    redis_url: str,
    tmp_path: Path,
    release_before: Path,
    record_property: Callable[[str, object], None],
) -> None:
    def stack(name: str, code: Path) -> Stack:
        folder = tmp_path / name
        folder.mkdir()
        module = "shop_processors.py"
        (folder / module).write_bytes(Path(shop_processors.__file__).read_bytes())
        new = Stack(installed, redis_url, folder, processors="shop_processors")
        new.environment["PYTHONPATH"] = str(code)
        made.callback(new.close)
        return new

    before = stack("before", release_before)
    assert "0004" in before.command("migrate")
    execute(before.engine, "CREATE TABLE effects (what text, event text, attempt integer)")
    ours = stack("ours", ROOT)
    senders = Senders(lambda: (ours.ports or before.ports)[-1])

    def have(count: int) -> None:
        wanted = len(senders.acknowledged) + count
        until(
            lambda: len(senders.acknowledged) >= wanted,
            what=f"{count} more are acknowledged",
            timeout_s=300,
        )

    with ThreadPoolExecutor(SENDERS) as pool:
        try:
            before.receiver()
            before.worker()
            before.relay()
            running = [pool.submit(senders.run) for _ in range(SENDERS)]
            have(100)
            assert "Migrated from 0004" in ours.command("migrate")
            have(100)  # by the processes of the release before, on the new schema
            until(
                lambda: (
                    before.value("SELECT count(*) FROM ingest.jobs WHERE state = 'succeeded'")
                    >= 100
                ),
                what="they work on the new schema",
                timeout_s=300,
            )
            ours.worker()
            ours.relay()
            ours.receiver()
            have(20)
            for process in before.processes:
                process.terminate()
            have(100)
        finally:
            senders.stop()
            for sender in running:
                sender.result(300)
    unfinished = """
        SELECT (SELECT count(*) FROM ingest.unadmitted) + (SELECT count(*) FROM ingest.jobs
        WHERE state NOT IN ('succeeded', 'dead'))
    """
    until(lambda: ours.value(unfinished) == 0, what="all is worked on")
    record_property("slowest_answer_s", round(senders.slowest_s, 3))
    record_property("refused", senders.refused)
    assert senders.slowest_s < 10  # 0.2 s where it was measured
    acknowledged = len(senders.acknowledged)
    assert ours.value("SELECT count(*) FROM ingest.orders") >= acknowledged
    assert ours.value("SELECT count(*) FROM ingest.jobs WHERE state = 'dead'") == 0
    twice = "SELECT count(*) FROM (SELECT FROM effects GROUP BY what, event HAVING count(*) > 1) t"
    assert ours.value(twice) == 0
    kept = ours.value("SELECT count(*) FROM effects WHERE what = 'ledger'")
    assert kept == ours.value("SELECT count(*) FROM ingest.events")
