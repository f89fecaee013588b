"""Choose the user that PostgreSQL runs as. PostgreSQL refuses root; any other user can run it.

For root there are two ways. One is a user namespace in which root's files belong to an ordinary
user. It works below folders that only root may enter, but some containers forbid it. The other is
the user `nobody`. It works where `nobody` can reach the folders. An existing data folder keeps the
way it was created with.
"""

import ctypes
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingest.local.errors import EmbeddedError

_CLONE_NEWUSER = 0x10000000
_INNER_UID = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The user that a process runs as: what to do between fork and exec, and who owns the files."""

    uid: int | None = None
    gid: int | None = None
    enter: Callable[[], None] | None = None

    def own(self, folder: Path) -> None:
        """Give `folder` to this identity."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)


AS_WE_ARE = Identity()


def _enter_user_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_INNER_UID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{_INNER_UID} {gid} 1")


IN_USER_NAMESPACE = Identity(enter=_enter_user_namespace)


def as_nobody() -> Identity:
    """Return the identity of `nobody`, the unprivileged user of every Unix."""
    nobody = pwd.getpwnam("nobody")
    return Identity(uid=nobody.pw_uid, gid=nobody.pw_gid)


def for_postgres(home: Path, data: Path, binary: Path) -> Identity:
    """Return an identity that can run `binary` on `data` below `home`.

    Raises:
        EmbeddedError: this process is root, and neither way works here.
    """
    if os.geteuid() != 0:
        return AS_WE_ARE
    candidates = [IN_USER_NAMESPACE] if sys.platform == "linux" else []
    candidates.append(as_nobody())
    if data.exists():
        owned_by_root = data.stat().st_uid == 0
        candidates = [
            identity for identity in candidates if (identity.uid is None) == owned_by_root
        ]
    for candidate in candidates:
        if candidate.uid is not None:
            home.chmod(0o711)
        if _can_run(candidate, home, binary):
            return candidate
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and the user nobody cannot reach {home} or {binary}: "
        "run `ingest up` as an ordinary user, or set INGEST_DATABASE_URL.",
        reason="root",
    )


def _can_run(identity: Identity, home: Path, binary: Path) -> bool:
    """Return whether `identity` can start the binary and enter the folder."""
    try:
        return (
            subprocess.run(
                [binary, "--version"],
                cwd=home,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                user=identity.uid,
                group=identity.gid,
                extra_groups=None if identity.uid is None else [],
                preexec_fn=identity.enter,
            ).returncode
            == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False
