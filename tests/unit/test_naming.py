"""Costly bodies are named by another process, and by a thread of this one when that fails."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ingest.errors import InvalidEnvelope, StorageUnavailable
from ingest.receiver.costly import is_costly
from ingest.receiver.identifier_process import Namer
from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import SourceSettings
from ingest.sources.identities import NamedBody, name_body
from tests.support.fleet import children_of
from tests.support.signing import SECRET
from tests.support.sources import awalchat
from tests.support.vectors import VECTORS

SOURCE = awalchat(SECRET)
EVENT = b'{"event":"order.created","timestamp":"2026-01-20T10:30:00Z","data":{"order_id":5}}'
OTHER = EVENT.replace(b"5}", b"6}")


class Elsewhere(AwalChat):
    """A source that the process does not know."""

    slug = "elsewhere"


def naming(
    run: Callable[[Namer], Awaitable[Any]], *, waiting_bytes: int = 10**6, timeout_s: float = 120.0
) -> Any:
    """Return what `run` returns, given a namer; afterwards no process is left."""

    async def with_namer() -> Any:
        namer = Namer(waiting_bytes=waiting_bytes, timeout_s=timeout_s)
        try:
            return await run(namer)
        finally:
            await namer.close()

    returned = asyncio.run(with_namer())
    assert processes() == []
    return returned


def processes() -> list[int]:
    """Return the pids of the processes that name bodies for us."""
    return [
        pid
        for pid in children_of(os.getpid())
        if _command(pid).endswith("ingest.receiver.identifier_process")
    ]


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:  # noqa: PTH123
        return file.read().replace("\0", " ").strip()


def outcome(body: bytes) -> tuple[str, ...]:
    """Return what naming a body here comes to."""
    return _told(name_body(SOURCE, body))


async def outcome_elsewhere(namer: Namer, body: bytes) -> tuple[str, ...]:
    """Return what naming a body in the process comes to."""
    return _told(await namer.name(SOURCE, body))


def _told(name: NamedBody) -> tuple[str, ...]:
    return (name.reason, str(name)) if isinstance(name, InvalidEnvelope) else (str(name),)


def test_the_process_names_and_refuses_as_this_one_does() -> None:
    bodies = [vector.body for vector in VECTORS]

    async def run(namer: Namer) -> None:
        for body in bodies:
            assert await outcome_elsewhere(namer, body) == outcome(body)
            assert len(processes()) == 1

    naming(run)
    assert {len(outcome(body)) for body in bodies} == {1, 2}


def test_bodies_are_named_in_turn() -> None:
    bodies = [EVENT.replace(b"5}", b"%d}" % number) for number in range(50)]

    async def run(namer: Namer) -> list[Any]:
        return await asyncio.gather(*(namer.name(SOURCE, body) for body in bodies))

    assert naming(run) == [name_body(SOURCE, body) for body in bodies]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_was_ended_is_replaced(number: signal.Signals) -> None:
    async def run(namer: Namer) -> None:
        await namer.name(SOURCE, EVENT)
        (first,) = processes()
        os.kill(first, number)
        assert await namer.name(SOURCE, OTHER) == name_body(SOURCE, OTHER)
        await namer.name(SOURCE, EVENT)
        (second,) = processes()
        assert second != first

    naming(run)


def test_a_process_that_ends_over_a_body_is_replaced_and_the_body_is_named() -> None:
    async def run(namer: Namer) -> None:
        await namer.name(SOURCE, EVENT)
        (first,) = processes()
        os.kill(first, signal.SIGSTOP)
        named = asyncio.create_task(namer.name(SOURCE, OTHER))
        await asyncio.sleep(0.01)
        os.kill(first, signal.SIGKILL)
        assert await named == name_body(SOURCE, OTHER)
        assert await namer.name(SOURCE, EVENT) == name_body(SOURCE, EVENT)

    naming(run)


def test_a_source_that_the_process_does_not_know_is_named_here() -> None:
    async def run(namer: Namer) -> None:
        source = Elsewhere(SourceSettings(secrets=()))
        assert await namer.name(source, EVENT) == name_body(SOURCE, EVENT)
        assert await namer.name(SOURCE, OTHER) == name_body(SOURCE, OTHER)

    naming(run)


def test_a_process_that_takes_too_long_is_not_waited_for() -> None:
    async def run(namer: Namer) -> None:
        for body in (EVENT, OTHER):
            assert await namer.name(SOURCE, body) == name_body(SOURCE, body)

    naming(run, timeout_s=0)


def test_a_process_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(namer: Namer) -> None:
        with monkeypatch.context() as context:
            context.setattr(sys, "executable", "/nonexistent/python")
            assert await namer.name(SOURCE, EVENT) == name_body(SOURCE, EVENT)
            assert processes() == []
        assert await namer.name(SOURCE, OTHER) == name_body(SOURCE, OTHER)
        assert len(processes()) == 1

    naming(run)


def test_who_is_interrupted_leaves_no_answer_to_the_next() -> None:
    async def run(namer: Namer) -> None:
        await namer.name(SOURCE, EVENT)
        (first,) = processes()
        os.kill(first, signal.SIGSTOP)
        interrupted = asyncio.create_task(namer.name(SOURCE, EVENT))
        await asyncio.sleep(0.01)
        interrupted.cancel()
        await asyncio.wait({interrupted})
        assert await namer.name(SOURCE, OTHER) == name_body(SOURCE, OTHER)

    naming(run)


def test_more_than_may_wait_is_refused_and_what_waits_is_named() -> None:
    async def run(namer: Namer) -> None:
        waiting = [asyncio.create_task(namer.name(SOURCE, EVENT)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StorageUnavailable, match="wait already"):
            await namer.name(SOURCE, EVENT)
        assert await asyncio.gather(*waiting) == [name_body(SOURCE, EVENT)] * 2
        await namer.name(SOURCE, EVENT)

    naming(run, waiting_bytes=2 * len(EVENT))


def test_the_process_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {
        "INGEST_AWALCHAT_SECRETS": "whsec_hidden_0123456789",
        "INGEST_DATABASE_URL": "postgresql://u:hidden@h/x",
        "INGEST_REDIS_URL_FILE": "/hidden",
        "INGEST_CONSOLE_TOKENS": "hidden",
    }
    for name, value in (hidden | {"INGEST_LOG_LEVEL": "error"}).items():
        monkeypatch.setenv(name, value)

    async def run(namer: Namer) -> None:
        await namer.name(SOURCE, EVENT)
        (pid,) = processes()
        with open(f"/proc/{pid}/environ") as file:  # noqa: PTH123, ASYNC230
            told = file.read()
        assert "INGEST_LOG_LEVEL=error" in told
        assert "hidden" not in told

    naming(run)


MIB = 1024 * 1024
COSTLY = {
    "keys": b'{"event":"x","data":{'
    + b",".join(b'"%06d":1.5' % number for number in range(70_000))
    + b"}}",
    "lists": b'{"event":"x","data":{"x":[1.5,' + b"[]," * 330_000 + b"1]}}",
    "deep": b"[" * 500_000 + b"]" * 500_000,
    "objects": b'[{"a":1}' + b',{"a":1}' * 5_000 + b"]",
    "text": json.dumps({"event": "x", "data": {"x": "y" * MIB}}).encode(),
}
CHEAP = {
    "documented": EVENT,
    "64 KiB of text": json.dumps({"event": "x", "data": {"x": "y " * 32_000}}).encode(),
    "16 KiB of lists": b"[" + b"[]," * 5_400 + b"1]",
    "prose": json.dumps({"event": "x", "data": {"x": "lorem, ipsum [1] {2} " * 1_500}}).encode(),
    "empty": b"",
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_holds_the_event_loop_is_costly(name: str) -> None:
    assert is_costly(COSTLY[name])


@pytest.mark.parametrize("name", CHEAP)
def test_what_most_senders_send_is_not(name: str) -> None:
    assert not is_costly(CHEAP[name])
