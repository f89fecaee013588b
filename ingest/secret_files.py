"""Read files with secrets again when they change: a key is rotated without a restart."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from ingest import logs
from ingest.errors import SettingsError

INTERVAL_S = 2.0

log = logs.logger(__name__)

Stamp = tuple[int, int, int, int] | None


class SecretFiles:
    """Looks every two seconds, from a thread of its own, whether files have changed."""

    def __init__(
        self,
        paths: Iterable[Path],
        reload: Callable[[], object],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Watch `paths`, which were read just now. If there is none, nothing runs.

        `reload` reads them again, and puts what they hold into use. If it raises, it has changed
        nothing: then the old secrets stay in use, and the log says so.
        """
        self._paths = sorted(set(paths))
        self._reload = reload
        self._interval_s = interval_s
        self._read = self._seen = self._stamps()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="secret files", daemon=True)

    def start(self) -> None:
        """Start to look."""
        if self._paths:
            self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ends.set()

    def look(self) -> None:
        """Read the files again if they have changed since they were read, and have not since the
        last look: whoever writes one may not have finished."""
        seen, self._seen = self._seen, self._stamps()
        if self._seen == self._read or self._seen != seen:
            return
        self._read = self._seen
        files = [str(path) for path in self._paths]
        try:
            self._reload()
        except SettingsError as error:
            log.error("secrets_not_reloaded", reason=error.reason, cause=str(error), files=files)
        except Exception as bug:  # of a plugin, perhaps; the next change is to be read all the same
            log.error("secrets_not_reloaded", exc_info=bug, files=files)
        else:
            log.info("secrets_reloaded", files=files)

    def _run(self) -> None:
        while not self._ends.wait(self._interval_s):
            self.look()

    def _stamps(self) -> list[Stamp]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> Stamp:
    """Return what changes whenever a file is written, replaced or made readable."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
