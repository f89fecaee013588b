"""Real servers for every test that needs one: PostgreSQL and Redis, started once a run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from sqlalchemy import Engine

from ingest import settings
from ingest.settings import Settings
from ingest.store import migrations, partitions
from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from tests.support.servers import Running as Running
from tests.support.servers import Servers as Servers
from tests.support.servers import setups
from tests.support.signing import SECRET

_SHORT = "not long"
SHORT_FOLDERS = ("unit",)
SHORT_FILES = frozenset(
    {
        "acceptance/test_documented_examples.py",
        "acceptance/test_drain.py",
        "acceptance/test_outage.py",
        "acceptance/test_receiver.py",
        "acceptance/test_simulate.py",
        "integration/test_admit.py",
        "integration/test_convergence.py",
        "integration/test_effects.py",
        "integration/test_read_model.py",
        "integration/test_replay.py",
        "integration/test_writer.py",
    }
)
"""What a newcomer sees pass in a few minutes: each promise of the README, by some of its tests. All
others take most of half an hour."""
_TEMPLATE = "template_for_tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers", choices=list(setups.SETUPS), default="embedded", help="what the tests run on"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "not_on(*setups, reason): what it tests is not there on these set-ups"
    )
    config.addinivalue_line(
        "markers", "long: is run only if it is named, or chosen by -m or -k (tests/conftest.py)"
    )
    if _nothing_is_chosen(config):
        config.option.markexpr = _SHORT
    # How fast a loaded machine makes examples says nothing of what is tested.
    hypothesis.settings.register_profile(
        "loaded machine",
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("loaded machine")
    # Without configuration it draws each traceback with what its variables hold: 1.4 s of CPU where
    # PostgreSQL is away, and this 2 ms.
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False),
        ]
    )


def _nothing_is_chosen(config: pytest.Config) -> bool:
    """Return whether the command names no tests, and chooses none by marker or name."""
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return is_all and not config.option.markexpr and not config.option.keyword


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is not in the short run."""
    path = item.path.relative_to(Path(__file__).parent)
    if path.parts[0] not in SHORT_FOLDERS and path.as_posix() not in SHORT_FILES:
        item.add_marker("long")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what is left out."""
    if config.option.markexpr != _SHORT:
        return None
    return "the short run: `python3 dev.py test tests` runs all tests"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what makes no sense on the chosen servers."""
    chosen = config.getoption("servers")
    for item in items:
        for marker in item.iter_markers("not_on"):
            if chosen in marker.args:
                reason = f"not on {chosen}: {marker.kwargs['reason']}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with setups.started(request.config.getoption("servers")) as started:
        yield started


@pytest.fixture(scope="session")
def template(servers: Servers) -> str:
    """A migrated database, to be cloned."""
    servers.execute(f"CREATE DATABASE {_TEMPLATE} OWNER {servers.owner}")
    servers.execute(servers.tables, database=_TEMPLATE)
    url = f"{servers.direct_url(_TEMPLATE)}&options=-crole%3D{servers.owner}"
    engine = create_engine(parse(url), role=Role.MIGRATION)
    with engine.connect() as connection:
        migrations.upgrade(connection)
    with engine.begin() as connection:
        partitions.ensure(connection, today=datetime.now(UTC).date(), days_ahead=2)
    engine.dispose()
    return _TEMPLATE


@contextmanager
def cloned(servers: Servers, template: str) -> Iterator[str]:
    """The address of a migrated database, dropped at the end."""
    with servers.database("test", template=template) as name:
        # Tests ask by bare names; statements of the product name the schema.
        servers.execute(f"ALTER DATABASE {name} SET search_path = ingest, public")
        yield servers.database_url(name)
        servers.check_neighbour(name)


@pytest.fixture
def database_url(servers: Servers, template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
def make_database(servers: Servers) -> Iterator[Callable[..., str]]:
    """Make databases that are not migrated; return their addresses."""
    with ExitStack() as made:

        def make(*, encoding: str | None = None) -> str:
            name = made.enter_context(servers.database("bare", encoding=encoding))
            return servers.database_url(name)

        yield make


@pytest.fixture(scope="module")
def shared_engine(servers: Servers, template: str) -> Iterator[Engine]:
    """An engine on a database of the module's, for tests that commit nothing."""
    with cloned(servers, template) as url:
        found = create_engine(parse(url), role=Role.PROCESSOR)
        yield found
        found.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on it, with room for tests that work from several threads."""
    found = create_engine(parse(database_url), role=Role.PROCESSOR, pool_size=25)
    yield found
    found.dispose()


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """An empty Redis."""
    servers.empty_redis()
    return servers.redis_url


@pytest.fixture
def make_settings(database_url: str, redis_url: str) -> Any:
    """Settings for the test's own database and Redis, with whatever else is given."""

    def make(**more: Any) -> Settings:
        own = {
            "database_url": database_url,
            "redis_url": redis_url,
            "sources": {"awalchat": {"secrets": SECRET}},
        }
        return settings.load(**(own | more))

    return make


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own INGEST_ variables must not change what is tested."""
    import os

    for name in list(os.environ):
        if name.startswith("INGEST_"):
            monkeypatch.delenv(name)
