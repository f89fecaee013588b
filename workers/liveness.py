"""A file that a healthy process touches, for health checks that only see files."""

import os
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps

from ingest.errors import SettingsError

INTERVAL_S = 5.0


def beat(path: Path | None) -> None:
    """Touch the file, if there is to be one."""
    if path is not None:
        path.touch()


def check(path: Path | None) -> None:
    """Refuse a file that cannot be made, before the work begins. It is made by the first beat.

    Raises:
        SettingsError: its folder is missing, or may not be written to.
    """
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise SettingsError(
            f"INGEST_HEARTBEAT_FILE: {path} cannot be written.", reason="bad_setting"
        )


def install(app: Celery, path: Path | None) -> None:
    """Let the worker's main loop touch `path`: a loop that hangs stops doing so."""

    class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = frozenset({"celery.worker.components:Timer"})

        def start(self, worker: Any) -> None:
            beat(path)
            worker.timer.call_repeatedly(INTERVAL_S, beat, (path,))

    if path is not None:
        app.steps["worker"].add(Heartbeat)
