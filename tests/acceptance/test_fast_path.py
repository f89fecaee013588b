"""The fast path's file may be deleted: the receiver works without it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ingest
from tests.acceptance.harness import Stack, request
from tests.support.deliver import body, order
from tests.support.waiting import until


@pytest.fixture
def without_fast_path(make_stack: Callable[..., Stack]) -> Stack:
    """A receiver that runs from a copy of the package in which the file is missing."""
    stack = make_stack()
    package = Path(ingest.__file__).parent
    shutil.copytree(
        package,
        stack.folder / "ingest",
        ignore=shutil.ignore_patterns("fastpath.py", "__pycache__", "static", "templates"),
    )
    (stack.folder / "ingest/__init__.py").write_text('__version__ = "a copy"\n')
    stack.environment["PYTHONPATH"] = str(stack.folder)
    stack.receiver()
    return stack


def test_without_the_fast_path_requests_are_answered_all_the_same(
    without_fast_path: Stack,
) -> None:
    stack = without_fast_path
    assert stack.post(order(1)).status == 200
    assert stack.post(b"[]").status == 400
    assert stack.post(body("note.added", {"list": [1.5, *([[]] * 60_000)]})).status == 200
    assert request(stack.ports[0], "POST", "/webhooks/awalchat", order(2)).status == 401
    answers = stack.post_all([order(number) for number in range(10, 40)], connections=4)
    assert {answer.status for answer in answers} == {200}
    assert stack.value("SELECT count(*) FROM deliveries") == 33
    versions = until(lambda: stack.query("SELECT version FROM processes WHERE kind = 'receiver'"))
    assert versions == [{"version": "a copy"}]
