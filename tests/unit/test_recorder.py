import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.store.address import parse
from ingest.store.pipeline.jobs import Lease
from workers.recovery.crash_record import CrashRecord, CrashRecorder, crash_records, folder_for

JOB = Lease(id=11, attempt=4)


def in_a_child(folder: Path, work: Callable[[CrashRecorder], None]) -> None:
    """Run `work` in a forked process, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work(CrashRecorder(folder, "host:1:abc"))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def found(folder: Path) -> list[CrashRecord]:
    with crash_records(folder) as each:
        return each


@pytest.mark.parametrize("end", [lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_dead_process_has_left_what_it_was_running(
    tmp_path: Path, end: Callable[[], None]
) -> None:
    def work(recorder: CrashRecorder) -> None:
        recorder.mark_running(Lease(id=10, attempt=1))
        recorder.mark_running(JOB)
        end()

    in_a_child(tmp_path, work)
    (wreck,) = found(tmp_path)
    assert (wreck.worker, wreck.running) == ("host:1:abc", JOB)
    wreck.clear()
    assert found(tmp_path) == []


def test_between_jobs_nothing_runs(tmp_path: Path) -> None:
    def work(recorder: CrashRecorder) -> None:
        recorder.mark_running(JOB)
        recorder.mark_idle()
        os._exit(1)

    in_a_child(tmp_path, work)
    (wreck,) = found(tmp_path)
    assert wreck.running is None


@pytest.mark.parametrize("torn", [b"", bytes(7), bytes(64), b"\xff" * 64])
def test_what_a_power_cut_left_of_a_record_hides_no_other(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "1-a.flight").write_bytes(torn)
    in_a_child(tmp_path, lambda recorder: recorder.mark_running(JOB))
    (wreck,) = found(tmp_path)
    assert wreck.running == JOB
    assert not (tmp_path / "1-a.flight").exists()


def test_a_live_process_is_no_wreck(tmp_path: Path) -> None:
    recorder = CrashRecorder(tmp_path, "host:1:abc")
    recorder.mark_running(JOB)
    assert found(tmp_path) == []
    recorder.close()


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    CrashRecorder(tmp_path, "host:1:abc").close()
    assert list(tmp_path.iterdir()) == []


def test_a_wreck_is_seen_by_one_at_a_time(tmp_path: Path) -> None:
    in_a_child(tmp_path, lambda _recorder: os._exit(1))
    with crash_records(tmp_path) as first, crash_records(tmp_path) as second:
        assert len(first) == 1
        assert second == []


def test_two_databases_do_not_share_a_folder(tmp_path: Path) -> None:
    one = folder_for(parse("postgresql://a/one"), tmp_path)
    assert one == folder_for(parse("postgresql://a/one"), tmp_path)
    assert one != folder_for(parse("postgresql://a/two"), tmp_path)
    assert one.stat().st_mode & 0o077 == 0
