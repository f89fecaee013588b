"""Machines of one's own: network namespaces on a bridge, each with an address (needs root)."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

_BRIDGE = "ingest-ha"
_HERE = "10.77.0.1"


class NotHere(Exception):
    """This machine cannot make what is wanted of it."""


def run(*command: str, check: bool = True) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


class Node:
    """A machine: a namespace with one interface."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"10.77.0.{number}"
        self._namespace = f"ingest-ha-{name}"
        self._port = f"ih-{name}"
        """The end of its cable, at the bridge."""

    def plug_in(self) -> None:
        """Make it, and connect it to the bridge."""
        inside = f"{self._port}-in"
        run("ip", "netns", "add", self._namespace)
        run("ip", "link", "add", self._port, "type", "veth", "peer", "name", inside)
        run("ip", "link", "set", inside, "netns", self._namespace)
        run("ip", "link", "set", self._port, "master", _BRIDGE, "up")
        run(*self.command("ip", "addr", "add", f"{self.address}/24", "dev", inside))
        for link in ("lo", inside):
            run(*self.command("ip", "link", "set", link, "up"))

    def command(self, *command: str) -> Sequence[str]:
        """Return the command that runs another one there."""
        return ("ip", "netns", "exec", self._namespace, *command)

    def pids(self) -> list[int]:
        """Return its processes."""
        return [
            int(pid) for pid in run("ip", "netns", "pids", self._namespace, check=False).split()
        ]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, those too that begin meanwhile."""
        seen: set[int] = set()
        while new := set(self.pids()) - seen:
            seen |= new
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def cut_off(self) -> None:
        """Pull its cable. Nobody is told: connections stay open and nothing arrives."""
        run("ip", "link", "set", self._port, "down")

    def reconnect(self) -> None:
        """Plug its cable in again."""
        run("ip", "link", "set", self._port, "up")

    def isolate(self, *, on: bool) -> None:
        """Keep it from other isolated machines; it reaches all others."""
        run("bridge", "link", "set", "dev", self._port, "isolated", "on" if on else "off")

    def remove(self) -> None:
        """End its processes and unmake it."""
        self.signal(signal.SIGKILL)
        run("ip", "link", "del", self._port, check=False)
        run("ip", "netns", "del", self._namespace, check=False)


class Network:
    """A bridge with machines on it; this process is on it too."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Make it; what an earlier run left is removed first.

        Raises:
            NotHere: this machine cannot; nothing of it stays.
        """
        self._nodes = nodes
        self.remove()
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.remove()
            raise NotHere(f"`{' '.join(error.cmd)}` says: {error.stderr.strip()}") from error
        except BaseException:
            self.remove()
            raise

    def _make(self) -> None:
        run("ip", "link", "add", _BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{_HERE}/24", "dev", _BRIDGE)
        run("ip", "link", "set", _BRIDGE, "up")
        for node in self._nodes:
            node.plug_in()

    def remove(self) -> None:
        """Unmake it."""
        for node in self._nodes:
            node.remove()
        run("ip", "link", "del", _BRIDGE, check=False)
