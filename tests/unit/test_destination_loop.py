"""The event loop that all destinations of a process share."""

import threading

import pytest

from workers.destinations import Loop


async def answer() -> int:
    return 42


def test_a_loop_whose_thread_could_not_start_is_made_anew_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop = Loop()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        work = answer()
        with pytest.raises(RuntimeError, match="can't start"):
            loop.run(work)
        work.close()
    assert loop.run(answer()) == 42
