"""What a process does about a thread of its own, or a processor's, that fails."""

import json
import subprocess
import sys
from textwrap import dedent

from tests.support.waiting import ENDS_WITHIN_S

NUMBER = "+966511110001"


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, which keeps its hooks and its end to itself."""
    return subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )


def test_a_thread_that_fails_is_logged_without_the_errors_message() -> None:
    done = run(
        f"""
        import threading
        from ingest import logs

        def notify():
            raise ValueError("400 for https://api/?to={NUMBER}")

        logs.configure("info", "json")
        thread = threading.Thread(target=notify, name="notifier")
        thread.start()
        thread.join()
        """
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["thread"]) == ("thread_failed", "notifier")
    assert told["exception"][0]["type"] == "builtins.ValueError"
    assert NUMBER not in line


def test_an_object_whose_end_fails_is_logged_without_the_errors_message() -> None:
    done = run(
        f"""
        from ingest import logs

        class Session:
            def __del__(self):
                raise ValueError("400 for https://api/?to={NUMBER}")

        logs.configure("info", "json")
        Session()
        """
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert told["event"] == "end_of_object_failed"
    assert told["exception"][0]["type"] == "builtins.ValueError"
    assert "__del__" in line
    assert NUMBER not in line


def test_a_thread_that_exits_is_no_failure() -> None:
    done = run(
        """
        import sys, threading
        from ingest import logs

        logs.configure("info", "json")
        thread = threading.Thread(target=sys.exit)
        thread.start()
        thread.join()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_process_ends_with_its_event_loop() -> None:
    """A task that exits ends the loop; jobs that wait for it would wait for ever."""
    done = run(
        """
        import math, sys, time
        from types import SimpleNamespace
        from ingest import logs
        from workers.coroutines.loop import Coroutines

        logs.configure("info", "json")
        shutdown = SimpleNamespace(ends_at=math.inf)
        runner = SimpleNamespace(grace_s=5, running={}, shutdown=shutdown)
        coroutines = Coroutines(runner, None)
        coroutines._started().call_soon_threadsafe(sys.exit)
        time.sleep(3600)
        """
    )
    assert done.returncode == 1
    assert '"event": "loop_ended"' in done.stderr
