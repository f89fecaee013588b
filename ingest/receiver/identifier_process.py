"""Names big bodies in a process of its own, so that they do not hold the event loop.

Parsing JSON holds the interpreter's lock: a body of 1 MB made for it holds the loop for 0.2 to
0.4 s, in whatever thread it is parsed. The first such body starts the process, or the receiver's
start does, where a sender batches. When the process dies, hangs or cannot be started, a thread
names the body, and the next body starts another process.

Run as a program, this module is that process. Frames with a source's slug, a body and the headers
come on stdin; a frame with the names, or with why there is none, goes to stdout. It ends when its
stdin closes.
"""

import asyncio
import contextlib
import json
import os
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from ingest import logs, settings
from ingest.errors import InvalidEnvelope, StorageUnavailable
from ingest.sources import registry
from ingest.sources.base import EventIdentity, Headers, Source, encoded_headers
from ingest.sources.identities import Element, NamedBody, NameOrError, name_body

_TIMEOUT_S = 10.0
"""For one body, the start of the process included: 0.5 s, and more on a machine that is busy."""
_LENGTH = struct.Struct("!I")

log = logs.logger(__name__)


class Namer:
    """Names costly bodies, one after the other, in the order in which they come."""

    def __init__(self, *, waiting_bytes: int, timeout_s: float = _TIMEOUT_S) -> None:
        """Make a namer whose process is yet to be started.

        Args:
            waiting_bytes: what the bodies that wait may hold together.
            timeout_s: seconds after which a thread names the body instead of the process.
        """
        self._waiting_bytes = waiting_bytes
        self._timeout_s = timeout_s
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        # One thread: two would only take the interpreter's lock from the loop more often.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="naming")

    async def start(self) -> None:
        """Start the process before the first body comes, which would wait 0.5 s for it."""
        with contextlib.suppress(OSError):  # then the first body starts it, or a thread names it
            self._process = await _start()

    async def name(self, source: Source, body: bytes, headers: Headers = ()) -> NamedBody:
        """Return the identity of a verified body's event, or why it is none, or its elements;
        `headers` are those that the source keeps.

        Raises:
            StorageUnavailable: too many bodies wait already.
        """
        if self._waiting and self._waiting + len(body) > self._waiting_bytes:
            raise StorageUnavailable("Too many deliveries wait already.", reason="backlog_full")
        self._waiting += len(body)
        try:
            async with self._turn:
                answer = await self._ask_process(source.slug, body, headers)
            if answer is not None:
                return _read_answer(answer)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, name_body, source, body, headers)
        finally:
            self._waiting -= len(body)

    async def close(self) -> None:
        """End the process and the thread; nothing more is to be named."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _ask_process(self, slug: str, body: bytes, headers: Headers) -> bytes | None:
        """Return the process's answer, or None when it gives none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(slug, body, headers)
        except (OSError, EOFError, TimeoutError) as error:
            log.warning("naming_process_failed", exc_info=error)
            return None

    async def _exchange(self, slug: str, body: bytes, headers: Headers) -> bytes:
        # Taken away meanwhile: whoever is interrupted leaves no half-read answer to the next body.
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            process = await _start()
        try:
            answer = await _send(process, slug, body, headers)
        except BaseException:
            await _end(process)
            raise
        self._process = process
        return answer


async def _start() -> Process:
    """Start the process, in a session of its own: a terminal's Ctrl-C does not reach it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=PIPE,
        stdout=PIPE,
        env=_without_secrets(os.environ),
        start_new_session=True,
    )


async def _end(process: Process) -> None:
    """Kill the process: it has nothing to lose."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the settings that hold secrets: naming needs none."""
    secret = settings.secret_variables()
    return {name: value for name, value in environment.items() if name not in secret}


async def _send(process: Process, slug: str, body: bytes, headers: Headers) -> bytes:
    """Return the process's answer for a body.

    Raises:
        OSError: the process does not take the body.
        EOFError: it ended before its answer.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.writelines([_frame(slug.encode()), _frame(body), _frame(_spelled(headers))])
    await process.stdin.drain()
    (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
    return await process.stdout.readexactly(length)


def _spelled(headers: Headers) -> bytes:
    return json.dumps(
        [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]
    ).encode()


def _frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


def _read_answer(answer: bytes) -> NamedBody:
    head, _, bodies = answer.partition(b"\n")
    fields = json.loads(head)
    if isinstance(fields, dict):
        return _read_name(fields)
    elements = []
    begin = 0
    for name in fields:
        end = begin + name["size"]
        elements.append(Element(bodies[begin:end], _read_name(name)))
        begin = end
    return elements


def _read_name(fields: Mapping[str, str]) -> NameOrError:
    if "reason" in fields:
        return InvalidEnvelope(fields["message"], reason=fields["reason"])
    return EventIdentity(
        event_id=fields["event_id"],
        type=fields["type"],
        fingerprint=bytes.fromhex(fields["fingerprint"]),
    )


def main() -> int:
    """Name the bodies that come on stdin until it closes."""
    answers = _take_stdout()
    loaded = settings.load(standalone=True)
    logs.configure(loaded.log_level, loaded.log_format)
    try:
        configured = registry.configured(loaded.sources)
        while (slug := _read_frame(sys.stdin.buffer)) is not None:
            body, headers = _read_frame(sys.stdin.buffer), _read_frame(sys.stdin.buffer)
            if body is None or headers is None:
                break
            answers.write(
                _frame(
                    _answer(configured[slug.decode()], body, encoded_headers(json.loads(headers)))
                )
            )
    except BrokenPipeError:  # the receiver is gone
        return 0
    except Exception as error:  # a traceback could quote the body
        log.error("naming_failed", exc_info=error)
        return 1
    return 0


def _take_stdout() -> BinaryIO:
    """Return what leads to the receiver. Whoever prints, a source's library perhaps, prints to
    stderr from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _read_frame(stream: BinaryIO) -> bytes | None:
    """Return a frame's payload, or None when the stream ends."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    payload = stream.read(length)
    return payload if len(payload) == length else None


def _answer(source: Source, body: bytes, headers: Headers) -> bytes:
    """Return a line of JSON with the name or the names, then the bodies of elements."""
    named = name_body(source, body, headers)
    if not isinstance(named, list):
        return json.dumps(_fields(named)).encode()
    names = [_fields(element.name) | {"size": len(element.body)} for element in named]
    return b"\n".join([json.dumps(names).encode(), b"".join(element.body for element in named)])


def _fields(name: NameOrError) -> dict[str, Any]:
    if isinstance(name, InvalidEnvelope):
        return {"reason": name.reason, "message": str(name)}
    return {"event_id": name.event_id, "type": name.type, "fingerprint": name.fingerprint.hex()}


if __name__ == "__main__":
    raise SystemExit(main())
