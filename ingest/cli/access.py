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
from ingest.sources import awalchat
from ingest.store import causes
from ingest.store.address import Database
from ingest.store.database import Role, create_engine
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


def target_url(given: str | None, found: Settings) -> str:
    """Where to post to: what was given, or the receiver of the settings.

    Raises:
        CommandError: it is no address of a web server.
    """
    if given is None:
        return f"http://{found.host}:{found.port}/webhooks/{awalchat.SLUG}"
    if not is_web_address(given):
        raise CommandError(f"{given!r} is no URL: http://host:port/path.", reason="bad_url")
    return given


def signing_secret(found: Settings) -> str:
    """The newest secret.

    Raises:
        CommandError: there is none.
    """
    if not found.awalchat_secrets:
        raise CommandError(
            "No secret to sign with: no `up` runs in this folder, "
            "and INGEST_AWALCHAT_SECRETS is not set.",
            reason="no_secret",
        )
    return found.awalchat_secrets[0].get_secret_value()


def migration_failed(error: SQLAlchemyError, where: Database) -> CommandError:
    """Return what to say when a migration ends with an error of the database's."""
    cause = causes.explain(error, where)
    return CommandError(f"Nothing was migrated. {cause.sentence}", reason=cause.reason)


def _explain(error: SQLAlchemyError, where: Database) -> CommandError:
    cause = causes.explain(error, where)
    advice = " Narrow it, with --since for example." if cause.reason == "took_too_long" else ""
    return CommandError(cause.sentence + advice, reason=cause.reason)
