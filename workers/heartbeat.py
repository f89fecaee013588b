"""A file that a healthy process touches, for health checks that only see files."""

from pathlib import Path
from typing import Any

from celery import Celery, bootsteps

INTERVAL_S = 5.0


def beat(path: Path | None) -> None:
    """Touch the file, if there is to be one."""
    if path is not None:
        path.touch()


def install(app: Celery, path: Path | None) -> None:
    """Let the worker's main loop touch `path`: a loop that hangs stops doing so."""

    class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = frozenset({"celery.worker.components:Timer"})

        def start(self, worker: Any) -> None:
            beat(path)
            worker.timer.call_repeatedly(INTERVAL_S, beat, (path,))

    if path is not None:
        app.steps["worker"].add(Heartbeat)
