"""A stack for each test, and for a whole module where its tests do not disturb each other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Stack
from tests.acceptance.up import Up
from tests.conftest import Servers, cloned


@pytest.fixture
def make_stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks on the test's own database."""
    made: list[Stack] = []

    def make(**environment: str) -> Stack:
        folder = tmp_path / f"stack-{len(made)}"
        folder.mkdir()
        made.append(Stack(database_url, redis_url, folder, **environment))
        return made[-1]

    yield make
    for stack in made:
        stack.close()


@pytest.fixture(scope="module")
def receiving(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A receiver for the tests of one module, and nothing that works on what it stores."""
    servers.empty_redis()
    with cloned(servers, template) as url:
        folder = tmp_path_factory.mktemp("receiving")
        stack = Stack(url, servers.redis_url, folder, body_deadline_s="1", log_level="debug")
        stack.receiver()
        yield stack
        stack.close()


@pytest.fixture
def make_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    made: list[Up] = []

    def make(*arguments: str, folder: Path | None = None, **environment: str) -> Up:
        where = folder or tmp_path / "shop"
        where.mkdir(exist_ok=True, parents=True)
        made.append(Up(where, *arguments, **environment))
        return made[-1]

    yield make
    for up in made:
        up.end()
