import asyncio
import gc
import json
import logging
from collections.abc import Iterator

import pytest

from ingest import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_our_logs_and_a_librarys_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logs.logger("ours").info("happened", count=3)
    logging.getLogger("theirs").warning("also %s", "this")
    ours, theirs = lines(capsys)
    assert (ours["event"], ours["count"], ours["logger"]) == ("happened", 3, "ours")
    assert (theirs["event"], theirs["level"]) == ("also this", "warning")


def test_an_exception_is_logged_without_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        try:
            raise KeyError("966500000000")
        except KeyError as cause:
            raise ValueError("for 966500000000") from cause
    except ValueError:
        logs.logger("ours").exception("failed")
        logging.getLogger("theirs").exception("failed too")
    for line in lines(capsys):
        assert "966500000000" not in json.dumps(line)
        types = [each["type"] for each in line["exception"]]  # type: ignore[attr-defined]
        assert types == ["builtins.ValueError", "builtins.KeyError"]


def test_what_an_event_loop_tells_of_has_no_message_result_or_argument_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail() -> None:
        raise ValueError("for 966500000000")

    def call(number: str) -> None:
        raise KeyError(number)

    async def leak() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(call, "966500000000")
        forgotten = loop.create_task(fail())
        await asyncio.wait([forgotten])
        del forgotten
        gc.collect()
        loop.call_exception_handler({"message": "Unclosed session", "session": "966500000000"})

    logs.configure("info", "json")
    asyncio.run(leak())
    logging.getLogger("asyncio").warning("Executing %s took %.3f seconds", "966500000000", 1)
    told = {str(line["event"]): line for line in lines(capsys)}
    assert "966500000000" not in json.dumps(list(told.values()))
    types = {
        event: [each["type"] for each in line.get("exception", ())]  # type: ignore[attr-defined]
        for event, line in told.items()
    }
    assert types == {
        "Exception in callback": ["builtins.KeyError"],
        "Task exception was never retrieved": ["builtins.ValueError"],
        "Unclosed session": [],
        "Executing %s took %.3f seconds": [],
    }


def test_a_chain_of_exceptions_that_never_ends_is_logged_to_an_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    logs.logger("ours").warning("failed", exc_info=one)
    (line,) = lines(capsys)
    assert len(line["exception"]) == 5  # type: ignore[arg-type]


def test_a_terminal_gets_readable_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    logs.logger("ours").info("happened")
    assert "happened" in capsys.readouterr().err


def test_levels_below_the_one_asked_for_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    logs.logger("ours").info("happened")
    logging.getLogger("theirs").info("happened")
    assert lines(capsys) == []


def test_a_flood_of_one_kind_is_sampled_and_counted() -> None:
    now = 0.0
    sampler = logs.Sampler(interval_s=1.0, clock=lambda: now)
    assert [sampler.lets_through("bad") for _ in range(1_000)].count(True) == 1
    assert sampler.lets_through("other")
    now = 1.5
    assert sampler.lets_through("bad")
    assert sampler.left_out("bad") == 999
    assert sampler.left_out("bad") == 0


def test_what_strangers_make_libraries_say_is_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    for _ in range(1_000):
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("asyncio").error("socket.accept() out of system resource\nsocket: 1")
        logging.getLogger("uvicorn.error").info("Started")
    events = [str(line["event"]) for line in lines(capsys)]
    assert events.count("Started") == 1_000
    assert 1 <= events.count("Invalid HTTP request received.") < 100
    assert 1 <= sum("socket.accept" in event for event in events) < 100
