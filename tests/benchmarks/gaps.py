"""How long a body of 1 MB, made to be expensive, holds up everybody else."""

import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmarks.subject import Receiving
from tests.benchmarks.world import World
from tests.support.signing import signed_headers

MIB = 1024 * 1024
_TIMES = 5

BODIES: dict[str, bytes] = {
    "70,000 keys": b'{"event":"x","data":{%b}}'
    % b",".join(b'"%06d":1.5' % number for number in range(70_000)),
    "330,000 empty lists and a decimal": b'{"event":"x","data":{"x":[1.5,%b1]}}'
    % (b"[]," * 330_000),
    "nested 500,000 deep": b'{"event":"x","data":%b%b}' % (b"[" * 500_000, b"]" * 500_000),
    "one string": b'{"event":"x","data":{"x":"%b"}}' % (b"x" * 1_000_000),
    "one string of Arabic": b'{"event":"x","data":{"x":"%b"}}' % ("م".encode() * 500_000),
    "128 KiB of empty lists": b'{"event":"x","data":{"x":[1.5,%b1]}}' % (b"[]," * 43_000),
    "not signed": b"x" * MIB,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One kind of body."""

    body: str
    status: int
    gap_ms: float
    """The longest that another request, which costs nothing, waited meanwhile; median of a few."""
    answer_ms: float
    """How soon the body itself was answered."""


def measure(world: World, subject: Receiving) -> Iterator[Gap]:
    """Post each body a few times, and ask for something else all the time."""
    subject.prepare(world)
    port = subject.start_receivers(world)
    for name, body in BODIES.items():
        _post(port, subject.path, body, signs=name != "not signed")  # whatever is started by it
        runs = [_gap(port, subject.path, name, body) for _ in range(_TIMES)]
        yield sorted(runs, key=lambda run: run.gap_ms)[_TIMES // 2]


def _gap(port: int, path: str, name: str, body: bytes) -> Gap:
    answered: list[tuple[int, float]] = []

    def post() -> None:
        answered.append(_post(port, path, body, signs=name != "not signed"))

    posting = threading.Thread(target=post)
    other = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    worst = 0.0
    posting.start()
    while posting.is_alive():
        began = time.perf_counter()
        other.request("GET", "/health/live")
        other.getresponse().read()
        worst = max(worst, time.perf_counter() - began)
    other.close()
    ((status, seconds),) = answered
    return Gap(body=name, status=status, gap_ms=worst * 1000, answer_ms=seconds * 1000)


def _post(port: int, path: str, body: bytes, *, signs: bool) -> tuple[int, float]:
    """Return the answer's status and how long it took, in seconds."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = signed_headers(body) if signs else {}
    began = time.perf_counter()
    client.request("POST", path, body, headers)
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer.status, time.perf_counter() - began
