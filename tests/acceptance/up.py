"""`ingest up` as a child process, and who belongs to it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.ports import free_port
from tests.support.waiting import ENDS_WITHIN_S, until


class Up:
    """A running `ingest up`."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.console_port = free_port()
        self._known: set[int] = set()
        self._environment = os.environ | environment
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "ingest",
                    "up",
                    "--port",
                    str(self.port),
                    "--console-port",
                    str(self.console_port),
                    *arguments,
                ],
                cwd=folder,
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def wait_until_ready(self) -> "Up":
        until(lambda: self._has_greeted() or self.process.poll() is not None)
        assert self._has_greeted(), self.said
        self.family()
        return self

    def _has_greeted(self) -> bool:
        """Whether it has said that it is ready, and all that it says then."""
        return (
            re.search(r"ready in .*^  look .*\n", self.said, re.DOTALL | re.MULTILINE) is not None
        )

    def command(self, *arguments: str) -> str:
        """A command in the same folder, with no settings at all."""
        return subprocess.run(
            [sys.executable, "-m", "ingest", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def stats(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = json.loads(self.command("stats", "--json"))
        return found

    def family(self) -> dict[int, str]:
        """The processes that descend from ours: pid and command."""
        parents, commands = {}, {}
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        parents[int(process.name)] = int(fields[1])
                        raw = (process / "cmdline").read_bytes()
                        commands[int(process.name)] = raw.replace(b"\0", b" ").decode()
        found = {self.process.pid}
        while True:
            children = {pid for pid, parent in parents.items() if parent in found} - found
            if not children:
                break
            found |= children
        found.discard(self.process.pid)
        self._known |= found
        return {pid: commands[pid] for pid in found if pid in commands}

    def left(self) -> set[int]:
        """Those ever seen of the family that still run."""
        return {pid for pid in self._known if is_running(pid)}

    def pid_of(self, part: str) -> int:
        """The oldest process of the family whose command has `part`."""
        return min(pid for pid, command in self.family().items() if part in command)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(ENDS_WITHIN_S)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends between open and read
        return False
