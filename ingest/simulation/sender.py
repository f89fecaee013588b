"""Send the events of a simulated shop, with the duplicates and delays of real networks.

Each occurrence is posted until it gets a final answer or is given up. Some are sent twice, some
late. The journal records every try and its answer.
"""

import asyncio
import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TextIO

import aiohttp

from ingest.simulation.policy import SenderRetries
from ingest.sources.base import Occurrence, Source

_TIMEOUT_S = 5.0
"""Few senders document their time-out; plan for 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficProfile:
    """How many events the sender sends, and how irregularly."""

    rate: float
    """Occurrences a second."""
    connections: int
    duplicates: float = 0.0
    """Share that is sent a second time, at the same moment or up to `late_up_to_s` later."""
    late: float = 0.0
    """Share that is delayed, so that later events arrive earlier."""
    late_up_to_s: float = 3.0
    burst: int = 0
    """Events sent at once every `burst_every_s`, besides the steady rate."""
    burst_every_s: float = 5.0


@dataclass(slots=True)
class Tally:
    """Counts of what was sent and answered."""

    occurrences: int = 0
    acknowledged: int = 0
    """Occurrences with at least one request that was answered 200."""
    refused: int = 0
    """Occurrences with a final answer other than 200; never sent again."""
    given_up: int = 0
    waiting: int = 0
    """Occurrences that are being sent or wait for a retry."""
    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


class Journal:
    """Writes a JSON line for each try: what was sent, when, and the answer."""

    def __init__(self, stream: TextIO | None, *, clock: Callable[[], float]) -> None:
        """`clock` returns Unix time in seconds. Without a stream nothing is written."""
        self._stream = stream
        self._clock = clock

    def record(
        self, occurrence: Occurrence, body: bytes, *, number: int, answer: str, seconds: float
    ) -> None:
        """Write one try. `number` counts the tries of one copy, from 1."""
        if self._stream is None:
            return
        line = {
            "occurrence": occurrence.number,
            "type": occurrence.type,
            "sha256": hashlib.sha256(body).hexdigest(),
            "try": number,
            "answer": answer,
            "at": round(self._clock(), 3),
            "seconds": round(seconds, 4),
        }
        self._stream.write(json.dumps(line) + "\n")


class Sender:
    """Sends the events of one shop."""

    def __init__(
        self,
        url: str,
        source: Source,
        *,
        manners: TrafficProfile,
        policy: SenderRetries,
        random: Random,
        journal: Journal,
    ) -> None:
        self._url = url
        self._source = source
        self._manners = manners
        self._policy = policy
        self._random = random
        self._journal = journal
        self._slots = asyncio.Semaphore(manners.connections)
        self._acknowledged: set[int] = set()
        self._open: Counter[int] = Counter()
        self._closing = asyncio.Event()
        self.tally = Tally()

    def close(self) -> None:
        """Stop new occurrences. Those that began are still sent until they are finished."""
        self._closing.set()

    async def run(self, occurrences: Iterator[Occurrence], *, duration_s: float) -> None:
        """Start occurrences for `duration_s` seconds, then wait until each is finished."""
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._manners.connections),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            started = time.monotonic()
            for due in self._due_times(duration_s):
                if await self._is_closed_within(started + due - time.monotonic()):
                    break
                occurrence = next(occurrences)
                self.tally.occurrences += 1
                for delay in self._copies():
                    self._open[occurrence.number] += 1
                    self.tally.waiting = len(self._open)
                    group.create_task(self._deliver(client, occurrence, delay))

    async def _is_closed_within(self, seconds: float) -> bool:
        """Wait for `seconds` or until `close`. Return whether it is closed."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)
        elif self.tally.occurrences % 50 == 0:
            await asyncio.sleep(0)  # when late, it must still let other tasks run
        return self._closing.is_set()

    def _due_times(self, duration_s: float) -> Iterator[float]:
        """Yield the times of the occurrences, in seconds after the start."""
        manners = self._manners
        steady, next_burst = 0.0, manners.burst_every_s
        while steady < duration_s:
            if manners.burst and steady >= next_burst:
                yield from [steady] * manners.burst
                next_burst += manners.burst_every_s
            yield steady
            steady += 1 / manners.rate

    def _copies(self) -> list[float]:
        """Return when to send an occurrence, in seconds from now: one time, or two."""
        manners, random = self._manners, self._random
        first = random.uniform(0, manners.late_up_to_s) if random.random() < manners.late else 0.0
        if random.random() >= manners.duplicates:
            return [first]
        return [first, first + random.choice((0.0, random.uniform(0, manners.late_up_to_s)))]

    async def _deliver(
        self, client: aiohttp.ClientSession, occurrence: Occurrence, delay_s: float
    ) -> None:
        """Send one copy until it is finished."""
        await asyncio.sleep(delay_s)
        body = occurrence.body()
        number = 0
        while True:
            number += 1
            answer = await self._post(client, occurrence, body, number)
            if answer.isdigit() and self._policy.is_final(int(answer)):
                break
            wait_s = self._policy.wait_s(number)
            if wait_s is None:
                break
            await asyncio.sleep(wait_s)
            if self._random.random() < 0.5:  # no sender promises that a retry keeps its timestamp
                body = occurrence.body(datetime.now(UTC))
        self._close(occurrence, answer)

    def _close(self, occurrence: Occurrence, answer: str) -> None:
        self._open[occurrence.number] -= 1
        if answer == "200" and occurrence.number not in self._acknowledged:
            self._acknowledged.add(occurrence.number)
            self.tally.acknowledged += 1
        if not self._open[occurrence.number]:
            del self._open[occurrence.number]
            if occurrence.number not in self._acknowledged:
                if answer.isdigit() and self._policy.is_final(int(answer)):
                    self.tally.refused += 1
                else:
                    self.tally.given_up += 1
        self.tally.waiting = len(self._open)

    async def _post(
        self, client: aiohttp.ClientSession, occurrence: Occurrence, body: bytes, number: int
    ) -> str:
        """Send one try. Return its status, or the name of the failure."""
        async with self._slots:
            headers = self._source.sign(body, now=int(time.time()))
            began = time.monotonic()
            try:
                async with client.post(self._url, data=body, headers=headers) as response:
                    answer = str(response.status)
            except (aiohttp.ClientError, TimeoutError, UnicodeError) as error:
                answer = _name(error)
            seconds = time.monotonic() - began
        self.tally.answers[answer] += 1
        self.tally.seconds.append(seconds)
        self._journal.record(occurrence, body, number=number, answer=answer, seconds=seconds)
        return answer


def _name(error: Exception) -> str:
    if isinstance(error, (aiohttp.ClientConnectorDNSError, UnicodeError)):  # no name of a host
        return "unresolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "refused"
    return "timeout" if isinstance(error, TimeoutError) else "cut"
