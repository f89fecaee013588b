"""A share of the machine's CPU time for some processes, by a control group of Linux."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000
"""How often the share begins anew. By default it is 100 ms: who has used his share waits that long.
"""
_ENDS_WITHIN_S = 60.0


class Quota:
    """So many cores for all processes that are started between `enter` and `leave` together."""

    def __init__(self, cores: float) -> None:
        """Make the group.

        Raises:
            OSError: no control groups are mounted, or this user may not make one.
        """
        self._is_v2 = (_ROOT / "cgroup.controllers").exists()
        self._outside = _own_group(is_v2=self._is_v2)
        # Of cgroups v2, only the topmost group surely lets its children have a quota.
        parent = _ROOT if self._is_v2 else self._outside
        self._group = parent / f"ingest-bench-{os.getpid()}"
        self._group.mkdir()
        used = round(cores * _PERIOD_US)
        try:
            if self._is_v2:
                (self._group / "cpu.max").write_text(f"{used} {_PERIOD_US}")
            else:
                (self._group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (self._group / "cpu.cfs_quota_us").write_text(str(used))
        except OSError:
            self._group.rmdir()
            raise

    def __enter__(self) -> Self:
        try:
            self.enter()
        except OSError:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.leave()
        self.remove()

    def enter(self) -> None:
        """Put this process into the group, and so what it starts."""
        _move(self._group)

    def leave(self) -> None:
        """Take this process out of it; what it has started stays."""
        _move(self._outside)

    def remove(self) -> None:
        """Remove the group, once the processes in it have ended."""
        ends = time.monotonic() + _ENDS_WITHIN_S
        while True:
            try:
                self._group.rmdir()
            except OSError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)
            else:
                return


def _own_group(*, is_v2: bool) -> Path:
    """The group that this process is in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if is_v2 and not controllers:
            return _ROOT / path.strip("/")
        if not is_v2 and "cpu" in controllers.split(","):
            return _ROOT / "cpu" / path.strip("/")
    raise FileNotFoundError("this process is in no control group for CPU time")


def _move(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


def is_possible() -> bool:
    """Whether this user can make such groups here."""
    try:
        with Quota(1):
            pass
    except OSError:
        return False
    return True
