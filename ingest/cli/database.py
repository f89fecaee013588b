"""What the commands share: the database, times, sources and addresses on the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ingest import settings
from ingest.errors import IngestError
from ingest.setting_values import is_web_address
from ingest.settings import Settings
from ingest.sources import registry
from ingest.sources.base import Source
from ingest.store import causes
from ingest.store.address import Database
from ingest.store.engine import Role, create_engine
from ingest.timestamps import TIME_FORMS, parse_moment


class CommandError(IngestError):
    """A command cannot do what the user asked."""


@contextmanager
def database(role: Role = Role.OPERATOR) -> Iterator[Engine]:
    """Yield an engine for the database of the settings.

    Raises:
        CommandError: the database is unreachable, not migrated, or did not answer in time.
    """
    address = settings.load().database
    engine = create_engine(address, role=role)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise _explain(error, address) from error
    finally:
        engine.dispose()


def parse_time(text: str | None) -> datetime | None:
    """Return a time from the command line: ISO 8601, or a span before now: `15m`, `2h`, `7d`.

    Raises:
        CommandError: the text is neither.
    """
    if text is None:
        return None
    moment = parse_moment(text, now=datetime.now(UTC))
    if moment is None:
        raise CommandError(f"{text!r} is not a time: write {TIME_FORMS}.", reason="bad_time")
    return moment


def source_of(slug: str | None, settings: Settings) -> Source:
    """Return the named source, or the default one if `slug` is None.

    Raises:
        CommandError: no source has this name.
    """
    sources = registry.configured(settings.sources)
    source = sources.get(slug or settings.default_source)
    if source is None:
        raise CommandError(
            f"There is no source {slug}; there is {', '.join(sources)}.", reason="unknown_source"
        )
    return source


def target_url(url: str | None, settings: Settings, source: Source) -> str:
    """Return the URL to post to: `url`, or the receiver of the settings if it is None.

    Raises:
        CommandError: `url` is not the address of a web server.
    """
    if url is None:
        return f"http://{settings.host}:{settings.port}/webhooks/{source.slug}"
    if not is_web_address(url):
        raise CommandError(f"{url!r} is not a URL: write http://host:port/path.", reason="bad_url")
    return url


def migration_failed(error: SQLAlchemyError, where: Database) -> CommandError:
    """Return the error to raise when the database refuses a migration."""
    cause = causes.explain(error, where)
    return CommandError(
        f"The migration stopped before its end. {cause.sentence}", reason=cause.reason
    )


def _explain(error: SQLAlchemyError, where: Database) -> CommandError:
    cause = causes.explain(error, where)
    is_slow = cause.reason == "took_too_long"
    advice = " Select fewer events, for example with --since." if is_slow else ""
    return CommandError(cause.sentence + advice, reason=cause.reason)
