"""How the queues of a worker are parted among its processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest import settings
from ingest.errors import SettingsError
from tests.support.lines import Lines
from tests.support.waiting import until
from workers import command, registry
from workers.registry import Registry
from workers.shares import Share, plan

ONE = [Share(queues=("events", "replay"), processes=2)]


def parts(*consumed: str, **allotted: int) -> list[tuple[str, int]]:
    named = {tuple(name.split("__")): number for name, number in allotted.items()}
    return [(each.name, each.processes) for each in plan(consumed, named, processes=2)]


def test_without_queues_of_their_own_there_is_one_share() -> None:
    assert plan(("events", "replay"), {}, processes=2) == ONE


def test_by_default_no_queue_can_take_a_process_from_the_live_one() -> None:
    assert parts("crm", "erp", "events", "replay") == [("events", 2), ("crm+erp+replay", 1)]


def test_named_shares_are_as_named_and_the_rest_has_one_process() -> None:
    assert parts("crm", "erp", "events", "replay", events=3, crm=1) == [
        ("events", 3),
        ("crm", 1),
        ("erp+replay", 1),
    ]
    assert parts("crm", "erp", "events", "replay", crm__erp=4) == [
        ("events", 2),
        ("crm+erp", 4),
        ("replay", 1),
    ]


def test_a_worker_that_does_not_consume_the_live_queue_has_all_processes_for_the_others() -> None:
    assert parts("crm", "erp") == [("crm+erp", 2)]
    assert parts("crm", "erp", crm=1) == [("crm", 1), ("erp", 2)]


def test_a_queue_that_no_processor_has_is_no_share() -> None:
    assert plan(("events", "replay"), {("crm",): 3}, processes=2) == ONE


def test_every_queue_is_in_one_share() -> None:
    consumed = ("a", "b", "events", "replay")
    shares: list[dict[tuple[str, ...], int]] = [
        {},
        {("a",): 1},
        {("a", "replay"): 1},
        {("events", "replay"): 1, ("b",): 2},
    ]
    for allotted in shares:
        found = plan(consumed, allotted, processes=2)
        assert sorted(queue for share in found for queue in share.queues) == sorted(consumed)


def test_the_setting_is_read() -> None:
    found = settings.load(worker_processes=" events = 2 , crm+erp=1")
    assert found.worker_processes == {("events",): 2, ("crm", "erp"): 1}


@pytest.mark.parametrize("bad", ["events", "events=0", "=2", "a=x", "a=1,a=2", "a+=1", "a=-1"])
def test_what_is_not_one_is_refused_in_a_sentence(bad: str) -> None:
    with pytest.raises(SettingsError, match="INGEST_WORKER_PROCESSES: must name each queue once"):
        settings.load(worker_processes=bad)


def test_queues_that_no_processor_has_are_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def processor(event: Any, db: Any) -> None: ...

    lines = Lines()
    monkeypatch.setattr(command, "log", lines)
    monkeypatch.setattr(registry, "declared", [])
    registry.processor("a", queue="crm")(processor)
    given = settings.load(worker_processes="events=2,crm+crn=1,erp=1,replay=1")
    processors = Registry(registry.declared, given)
    command.warn_of_idle_queues(processors, ("crm", "cmr"), given)
    known = ("crm", "events", "replay")
    assert lines.kept == [
        (
            "queues_without_processor",
            {"named_in": "INGEST_WORKER_PROCESSES", "queues": ["crn", "erp"], "known": known},
        ),
        ("queues_without_processor", {"named_in": "--queues", "queues": ["cmr"], "known": known}),
    ]
    command.warn_of_idle_queues(processors, (), settings.load(worker_processes="events=2"))
    assert len(lines.kept) == 2


_TWO_SHARES = """
import os, pathlib, sys, time
from workers import shares
sys.platform = sys.argv[1]

def work(share, _file):
    pathlib.Path(share.name).write_text(str(os.getpid()))
    while True:
        time.sleep(60)

two = [shares.Share(queues=(name,), processes=1) for name in ("a", "b")]
shares.run(two, work, heartbeat_file=None)
"""


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_shares_end_when_their_parent_is_killed(platform: str, tmp_path: Path) -> None:
    """Linux's kernel tells them; elsewhere they look."""
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", _TWO_SHARES, platform],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
    )
    files = [tmp_path / "a", tmp_path / "b"]
    try:
        until(lambda: all(file.exists() and file.read_text() for file in files), what="both work")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    pids = [int(file.read_text()) for file in files]
    until(lambda: not any(map(_is_alive, pids)), what="both have ended")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
