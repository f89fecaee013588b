"""The data folder of `ingest up`: its lock, and the paths of the files in it."""

import base64
import fcntl
import hashlib
import json
import os
import pwd
import secrets
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

from ingest.local.errors import EmbeddedError
from ingest.settings import OWN_SOURCES, UP_FILE

_SOCKET_PATH_LIMIT = 103  # bytes; macOS's, Linux has 107
_LONGEST_SOCKET_NAME = len("/.s.PGSQL.5432.lock")
_PREVIOUS_RUN_ENDS_S = 20
_SECRET_BYTES = 32
_SOURCES = """\
# Senders that `ingest up` receives besides the built-in ones; add yours. A source of the same name
# in the files of INGEST_SOURCES has precedence. `ingest sources check` says what they mean.

[standard-webhooks]
preset = "standard-webhooks"
"""


class DataFolder:
    """A folder that one `ingest up` at a time locks, until the last of its children has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self._lock: int | None = None

    @property
    def lock_fd(self) -> int:
        """Return the lock for children to inherit: it lasts while any of them runs."""
        assert self._lock is not None
        return self._lock

    def hold(self) -> None:
        """Create the folder and take its lock.

        After a supervisor was killed, this waits until its children have ended.

        Raises:
            EmbeddedError: another `ingest up` uses the folder, or it cannot be written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            (self.path / ".gitignore").write_text("*\n")  # the folder holds a secret
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedError(
                f"Cannot write to {self.path}: {error.strerror}.", reason="folder"
            ) from None
        deadline = time.monotonic() + _PREVIOUS_RUN_ENDS_S
        while not _try_lock(lock):
            holder = int(os.pread(lock, 20, 0) or b"0")
            if _is_alive(holder) or time.monotonic() > deadline:
                os.close(lock)
                raise EmbeddedError(
                    f"`ingest up` already runs on {self.path} (process {holder}).", reason="held"
                )
            time.sleep(0.05)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        os.set_inheritable(lock, True)
        self._lock = lock

    def sockets(self) -> Path:
        """Return a private folder whose path is short enough for Unix sockets."""
        folder = self.path / "run"
        if len(os.fsencode(folder)) + _LONGEST_SOCKET_NAME > _SOCKET_PATH_LIMIT:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
            folder = Path(tempfile.gettempdir()) / f"ingest-{os.getuid()}-{digest}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        owners = {os.getuid()} if os.getuid() else {0, pwd.getpwnam("nobody").pw_uid}
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_mode & 0o077
            or status.st_uid not in owners
        ):
            raise EmbeddedError(f"Other users can access {folder}: remove it.", reason="folder")
        return folder

    def secret_file(self, source: str) -> Path:
        """Return the file with the webhook secret of a source."""
        return self.path / f"{source}.secret"

    def secret(self, source: str) -> str:
        """Return the webhook secret of a source; create it on first use."""
        file = self.secret_file(source)
        try:
            return file.read_text().strip()
        except FileNotFoundError:
            # In base64 with its padding, as libraries of Standard Webhooks decode it.
            key = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
            _write_private(file, f"whsec_{key}\n")
            return f"whsec_{key}"

    def describe_sources(self) -> None:
        """Write the file of this folder's sources, unless there is one."""
        file = self.path / OWN_SOURCES
        if not file.exists():
            file.write_text(_SOURCES)

    def publish(self, settings: dict[str, Any]) -> None:
        """Write down how commands that run in this folder reach this run."""
        _write_private(self.path / UP_FILE, json.dumps(settings))

    def withdraw(self) -> None:
        """Remove what `publish` wrote."""
        (self.path / UP_FILE).unlink(missing_ok=True)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
