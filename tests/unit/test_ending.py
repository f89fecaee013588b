"""Nothing kills a worker while it still may be about to end by itself."""

from pathlib import Path

import pytest

from ingest import settings
from ingest.cli.processes import WORKER_ENDS_S
from ingest.cli.up import _Run
from ingest.local.folder import DataFolder
from workers.transaction import COMMIT_LIMIT_S
from workers.wiring import HARD_LIMIT_GRACE_S

PROCESSES_END_S = 10
"""An idle worker takes 3 s; the rest is for a busy machine."""


def test_a_worker_has_the_time_that_the_longest_of_its_ends_takes() -> None:
    # A call that heeds no exception ends with its process. One that has just come to its end is
    # finished and committed.
    stuck_s, committing_s = HARD_LIMIT_GRACE_S, 2 * COMMIT_LIMIT_S
    assert max(stuck_s, committing_s) + PROCESSES_END_S <= WORKER_ENDS_S


@pytest.mark.parametrize("drain_s", [30, 200])
def test_up_gives_a_worker_its_drain_time_and_that(tmp_path: Path, drain_s: float) -> None:
    folder = DataFolder(tmp_path)
    run = _Run(
        settings=settings.load(worker_drain_s=drain_s),
        folder=folder,
        database_url="postgresql:///test",
        redis_url="redis://localhost",
        secrets={},
    )
    assert run.process("worker", 1).stop_timeout_s == drain_s + WORKER_ENDS_S
    assert run.process("relay", 1).stop_timeout_s == 30
