"""What commands that look into the database share."""

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
    """A command cannot do what it was asked."""


@contextmanager
def database() -> Iterator[Engine]:
    """The database of the settings.

    Raises:
        CommandError: it is unreachable, not migrated, or did not answer in time; in one sentence.
    """
    address = settings.load().database
    engine = create_engine(address, role=Role.OPERATOR)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise _explain(error, address) from error
    finally:
        engine.dispose()


def parse_time(text: str | None) -> datetime | None:
    """A time given on the command line: ISO 8601, or a span before now such as `15m`, `2h`, `7d`.

    Raises:
        CommandError: it is neither.
    """
    if text is None:
        return None
    moment = parse_moment(text, now=datetime.now(UTC))
    if moment is None:
        raise CommandError(f"{text!r} is no time: give {TIME_FORMS}.", reason="bad_time")
    return moment


def source_of(given: str | None, settings: Settings) -> Source:
    """Return the source that was named, or the default one.

    Raises:
        CommandError: there is none of that name.
    """
    sources = registry.configured(settings.sources)
    source = sources.get(given or settings.default_source)
    if source is None:
        raise CommandError(
            f"There is no source {given}; there is {', '.join(sources)}.", reason="unknown_source"
        )
    return source


def target_url(given: str | None, found: Settings, source: Source) -> str:
    """Where to post to: what was given, or the receiver of the settings.

    Raises:
        CommandError: it is no address of a web server.
    """
    if given is None:
        return f"http://{found.host}:{found.port}/webhooks/{source.slug}"
    if not is_web_address(given):
        raise CommandError(f"{given!r} is no URL: http://host:port/path.", reason="bad_url")
    return given


def migration_failed(error: SQLAlchemyError, where: Database) -> CommandError:
    """Return what to say when a migration ends with an error of the database's."""
    cause = causes.explain(error, where)
    return CommandError(f"Nothing was migrated. {cause.sentence}", reason=cause.reason)


def _explain(error: SQLAlchemyError, where: Database) -> CommandError:
    cause = causes.explain(error, where)
    advice = " Narrow it, with --since for example." if cause.reason == "took_too_long" else ""
    return CommandError(cause.sentence + advice, reason=cause.reason)
