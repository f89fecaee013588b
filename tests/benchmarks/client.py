"""The load client in a process of its own, as it must be beside a receiver on two cores."""

import dataclasses
import json
import subprocess
import sys

from tests.benchmarks.load import Plan, Result


class Client:
    """One running plan."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(plan)))
        self._process.stdin.close()

    @property
    def is_running(self) -> bool:
        """Whether it has not come to its end."""
        return self._process.poll() is None

    def result(self) -> Result:
        """Wait for its end.

        Raises:
            RuntimeError: it failed; its own words are on stderr.
        """
        assert self._process.stdout is not None
        printed = self._process.stdout.read()
        if self._process.wait() != 0:
            raise RuntimeError("the load client failed")
        return Result(**json.loads(printed))

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


def send(plan: Plan) -> Result:
    """Carry out a plan."""
    return Client(plan).result()
