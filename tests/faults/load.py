"""The load: `ingest simulate` in a process of its own, and the journal that it keeps."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from signal import SIGINT
from typing import Any

from tests.faults.world import World
from tests.support.fleet import Fleet
from tests.support.signing import SECRET

TIME_FACTOR = 120
"""A minute of the sender's passes in half a second: its five retries take 3.7 minutes."""
_CONNECTIONS = 64
_LONGEST_S = 3_600


@dataclass(slots=True)
class Journal:
    """What was sent, and what was answered."""

    acknowledged: dict[int, set[str]] = field(default_factory=dict)
    """Per occurrence, the digests of its bodies that were answered 200."""
    occurrences: set[int] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    tries: list[tuple[float, float, str]] = field(default_factory=list)
    """Per request: Unix time of the answer, seconds that it took, the answer."""

    @property
    def longest_silence_s(self) -> float:
        """The longest time between two acknowledgements, seconds."""
        times = sorted(at for at, _, answer in self.tries if answer == "200")
        return max((later - earlier for earlier, later in pairwise(times)), default=0)


class Load:
    """A shop's sender, from `start` to `stop`."""

    def __init__(
        self,
        world: World,
        *,
        rate: float,
        seed: int,
        journal: Path,
        url: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Post to `url`, by default to the receivers' own port, with `more` in the environment."""
        self._fleet: Fleet = world.fleet
        self._journal = journal
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ingest", "simulate"),
                *("--rate", str(rate), "--duration", str(_LONGEST_S), "--seed", str(seed)),
                *("--connections", str(_CONNECTIONS), "--time-factor", str(TIME_FACTOR)),
                *("--duplicates", "0.05", "--late", "0.1"),
                *("--journal", str(journal)),
                *("--url", url or f"http://127.0.0.1:{world.port}/webhooks/awalchat"),
            ],
            env={"INGEST_AWALCHAT_SECRETS": SECRET, "INGEST_DATA": str(world.home), **(more or {})},
            cwd=world.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._fleet.until(
                lambda: journal.exists() and journal.stat().st_size > 0,
                what="the sender has sent",
                timeout_s=30,
            )
        except BaseException:
            self.kill()
            raise

    def stop(self) -> Journal:
        """Let nothing more happen at the shop, wait until all is through, and read the journal."""
        self._process.send_signal(SIGINT)
        self._fleet.until(
            lambda: self._process.poll() is not None, what="the sender is through", timeout_s=300
        )
        return self.read()

    def read(self) -> Journal:
        """The journal so far."""
        return read(self._journal)

    def kill(self) -> None:
        """End it, for a run that is given up."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def read(path: Path) -> Journal:
    """Read a journal."""
    found = Journal()
    for line in _lines(path):
        number, answer = line["occurrence"], line["answer"]
        found.occurrences.add(number)
        found.answers[answer] += 1
        found.tries.append((line["at"], line["seconds"], answer))
        if answer == "200":
            found.acknowledged.setdefault(number, set()).add(line["sha256"])
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)
