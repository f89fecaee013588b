"""The load client: signed requests over kept-alive connections, from one process.

Requests are signed before the clock starts, and the loop below is a system call to send, one to
receive and little else, so that the client is not what is measured; what it cost is in its result.

Run as a program it takes a `Plan` as JSON on stdin and prints a `Result` as JSON.
"""

import dataclasses
import json
import select
import socket
import sys
import time
from array import array
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from tests.benchmarks import messages

_DRAIN_S = 30.0
_OK = b"200"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send."""

    port: int
    path: str
    count: int
    connections: int
    rate: float | None = None
    """Requests a second, sent on time whether or not answers come (open loop); None: each
    connection sends its next request when it has its answer (closed loop)."""
    body_bytes: int = 300
    first: int = 0
    """Number of the first message; no two runs against one database may share numbers."""
    seconds: float | None = None
    """Stop sending after so long."""
    is_long: bool = False
    """Sign each request when it is due, since signatures are good for minutes only; with a rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it. Latencies are in milliseconds; in an open loop they count from the moment
    that a request was due, not from when the client got round to it."""

    answers: dict[str, int]
    seconds: float
    """From the first request to the last answer."""
    client_cpu_s: float
    p50: float
    p95: float
    p99: float
    p999: float
    worst: float
    behind_ms: float
    """How late the client itself was with a request, at worst."""
    by_second: list[tuple[float, float]] = field(default_factory=list)
    """In an open loop: the 99th percentile and the worst, of the requests due in each second."""
    after: float = field(default_factory=time.time)
    """Unix time of the last answer."""

    @property
    def ok(self) -> int:
        """Requests answered 200."""
        return self.answers.get("200", 0)

    @property
    def rate(self) -> float:
        """Answers 200 a second."""
        return self.ok / self.seconds


class _Connection:
    """One kept-alive connection and the request that it waits for."""

    __slots__ = ("_got", "_need", "socket", "started")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started = 0.0
        self._got = b""
        self._need = 0

    def receive(self) -> bytes | None:
        """The status, once the answer is whole."""
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed the connection")
        if self._got:
            data = self._got + data
        if not self._need:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._got = data
                return None
            self._need = end + 4 + _content_length(data[:end])
        if len(data) < self._need:
            self._got = data
            return None
        self._got, self._need = b"", 0
        return data[9:12]


def _content_length(head: bytes) -> int:
    found = head.lower().find(b"content-length:")
    return int(head[found + 15 :].split(b"\r\n", 1)[0]) if found >= 0 else 0


def run(plan: Plan) -> Result:
    """Send what the plan says, and wait for every answer.

    Raises:
        ConnectionError, TimeoutError: the server hung up, or an answer never came.
    """
    requests = messages.requests(
        plan.path,
        plan.first,
        0 if plan.is_long else plan.count,
        body_bytes=plan.body_bytes,
        now=int(time.time()),
    )
    connections = {}
    for _ in range(plan.connections):
        connection = _Connection(plan.port)
        connections[connection.socket.fileno()] = connection
    loop = _closed_loop if plan.rate is None else _open_loop
    cpu = time.process_time()
    began = time.perf_counter()
    answers, latencies, due_at, behind = loop(plan, requests, connections)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    for connection in connections.values():
        connection.socket.close()
    ordered = sorted(latencies)
    return Result(
        answers=dict(answers),
        seconds=seconds,
        client_cpu_s=cpu,
        p50=_percentile(ordered, 0.50),
        p95=_percentile(ordered, 0.95),
        p99=_percentile(ordered, 0.99),
        p999=_percentile(ordered, 0.999),
        worst=_percentile(ordered, 1.0),
        behind_ms=behind * 1000,
        by_second=_by_second(latencies, due_at),
    )


_Outcome = tuple[Counter[str], "array[float]", "array[float]", float]
"""Answers by status, latencies, when each was due, and how late the client was at worst; seconds.
"""


def _closed_loop(
    plan: Plan, requests: list[bytes], connections: dict[int, _Connection]
) -> _Outcome:
    clock = time.perf_counter
    ends = clock() + (plan.seconds or float("inf"))
    answers: Counter[str] = Counter()
    latencies = array("d")
    requests.reverse()
    poll = select.epoll()
    waiting = 0
    for number, connection in connections.items():
        poll.register(number, select.EPOLLIN)
        if requests:
            connection.started = clock()
            connection.socket.sendall(requests.pop())
            waiting += 1
    while waiting:
        ready = poll.poll(_DRAIN_S)
        if not ready:
            raise TimeoutError(f"{waiting} requests without an answer for {_DRAIN_S:g} s")
        for number, _ in ready:
            connection = connections[number]
            status = connection.receive()
            if status is None:
                continue
            now = clock()
            answers[status.decode()] += 1
            latencies.append(now - connection.started)
            if requests and now < ends:
                connection.started = now
                connection.socket.sendall(requests.pop())
            else:
                waiting -= 1
    poll.close()
    return answers, latencies, array("d"), 0.0


def _open_loop(plan: Plan, requests: list[bytes], connections: dict[int, _Connection]) -> _Outcome:
    assert plan.rate is not None
    clock = time.perf_counter
    gap = 1 / plan.rate
    answers: Counter[str] = Counter()
    latencies, due_at = array("d"), array("d")
    free = deque(connections.values())
    busy: set[int] = set()
    began = clock()
    total = plan.count if plan.seconds is None else min(plan.count, int(plan.seconds / gap))
    sent, behind = 0, 0.0
    while sent < total or busy:
        now = clock()
        while sent < total and free and began + sent * gap <= now:
            connection = free.popleft()
            connection.started = began + sent * gap
            behind = max(behind, now - connection.started)
            connection.socket.sendall(_request(plan, sent) if plan.is_long else requests[sent])
            busy.add(connection.socket.fileno())
            sent += 1
            now = clock()
        # select takes microseconds; epoll rounds up to milliseconds, which is a request's time.
        wait = _DRAIN_S if sent == total or not free else max(0.0, began + sent * gap - now)
        ready, _, _ = select.select(busy, (), (), wait)
        if not ready and wait == _DRAIN_S:
            raise TimeoutError(f"{len(busy)} requests without an answer for {_DRAIN_S:g} s")
        for number in ready:
            connection = connections[number]
            status = connection.receive()
            if status is None:
                continue
            answers[status.decode()] += 1
            latencies.append(clock() - connection.started)
            due_at.append(connection.started - began)
            busy.discard(number)
            free.append(connection)
    return answers, latencies, due_at, behind


def _request(plan: Plan, number: int) -> bytes:
    """The request of a number, signed now."""
    (request,) = messages.requests(
        plan.path, plan.first + number, 1, body_bytes=plan.body_bytes, now=int(time.time())
    )
    return request


def _by_second(latencies: "array[float]", due_at: "array[float]") -> list[tuple[float, float]]:
    seconds: dict[int, list[float]] = defaultdict(list)
    for latency, due in zip(latencies, due_at, strict=False):  # a closed loop has no due times
        seconds[int(due)].append(latency)
    return [
        (_percentile(ordered, 0.99), _percentile(ordered, 1.0))
        for ordered in (sorted(seconds[second]) for second in range(max(seconds, default=-1) + 1))
    ]


def _percentile(ordered: list[float], share: float) -> float:
    """Nearest rank, in milliseconds."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


if __name__ == "__main__":
    json.dump(dataclasses.asdict(run(Plan(**json.load(sys.stdin)))), sys.stdout)
