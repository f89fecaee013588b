"""The pytest plug-in: fixtures for tests of processors. What they need is imported when they are
used, so that other tests do not pay for it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from workers.testing.pipeline import Pipeline

DATABASE = "--ingest-database"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a server."""
    parser.getgroup("ingest", "tests of webhook processors").addoption(
        DATABASE,
        metavar="URL",
        help="a PostgreSQL where databases may be created; default: one of the tests' own",
    )


@pytest.fixture(scope="session")
def pipeline_tables() -> str:
    """Return SQL that makes the application's own tables: override it."""
    return ""


@pytest.fixture(scope="session")
def pipeline_engine(request: pytest.FixtureRequest, pipeline_tables: str) -> "Iterator[Engine]":
    """Yield an engine of a database with the pipeline's schema and the application's tables."""
    from ingest.store.address import parse
    from workers import guard
    from workers.testing.database import prepared

    with prepared(request.config.getoption(DATABASE), pipeline_tables) as url:
        engine = guard.create_engine(parse(url))
        try:
            yield engine
        finally:
            engine.dispose()


@pytest.fixture
def pipeline(request: pytest.FixtureRequest, pipeline_engine: "Engine") -> "Iterator[Pipeline]":
    """Yield what makes events and runs processors, in a transaction that is rolled back."""
    from ingest import settings
    from workers.testing.faults import Fault
    from workers.testing.pipeline import Pipeline

    fault = getattr(request, "param", Fault.NONE)
    with Pipeline(pipeline_engine, settings.load(), fault=fault) as running:
        yield running
