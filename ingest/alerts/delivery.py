"""Send the messages that wait, in the order of each channel. One that is down holds up no other."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from ingest import logs
from ingest.alerts import notices
from ingest.alerts.channels.base import Envelope
from ingest.alerts.configuration import Configuration
from ingest.errors import IngestError
from ingest.store import alerts
from ingest.store.alerts import Outgoing
from ingest.store.server_time import server_time

FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=30)
_AT_ONCE = 8
"""Channels that are sent to at the same time."""

log = logs.logger(__name__)


class Delivery:
    """Sends the messages of a configuration's channels."""

    def __init__(
        self,
        engine: Engine,
        configuration: Configuration,
        environ: Mapping[str, str],
        *,
        clock: Callable[[Connection], datetime] = server_time,
    ) -> None:
        """Read and record through `engine`; secrets are read from `environ` or its files. `clock`
        returns the time that all processes share."""
        self._engine = engine
        self._channels = dict(configuration.channels)
        self._environ = environ
        self._clock = clock

    def run(self) -> int:
        """Send what is due, one message of each channel. Return how many were taken.

        Raises:
            SQLAlchemyError: PostgreSQL is away or refuses.
        """
        with self._engine.begin() as connection:
            now = self._clock(connection)
            messages = alerts.take(connection, list(self._channels), now=now)
        if not messages:
            return 0
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="alert channel") as pool:
            errors = list(pool.map(self._send, messages))
        with self._engine.begin() as connection:
            now = self._clock(connection)
            for message, error in zip(messages, errors, strict=True):
                if error is None:
                    alerts.sent(connection, message, now=now)
                else:
                    next_at = next_attempt(message, now)
                    alerts.failed(connection, message, error, next_at=next_at)
        return len(messages)

    def _send(self, message: Outgoing) -> str | None:
        """Send a message. Return why it was not taken, or None."""
        from ingest.alerts.channels import send  # 0.2 s of CPU: relays without a channel go without

        envelope = Envelope(
            id=message.id, made_at=message.made_at, message=notices.from_json(message.content)
        )
        try:
            send.send(self._channels[message.channel], envelope, self._environ)
        except IngestError as error:
            log.warning(
                "alert_not_sent",
                channel=message.channel,
                reason=error.reason,
                cause=str(error),
                attempt=message.attempts,
            )
            return str(error)
        except Exception as bug:  # of a library; the other channels are to be sent all the same
            log.error("alert_not_sent", channel=message.channel, reason="internal", exc_info=bug)
            return f"A bug: {type(bug).__name__}."
        log.info("alert_sent", channel=message.channel, attempt=message.attempts)
        return None


def next_attempt(message: Outgoing, now: datetime) -> datetime | None:
    """Return when a message that was not taken is tried again; None: never.

    The wait doubles from 15 s to half an hour. After a day it is given up.
    """
    doublings = min(message.attempts - 1, 20)
    at = now + min(FIRST_WAIT * 2**doublings, LONGEST_WAIT)
    return at if at - message.made_at < alerts.GIVEN_UP_AFTER else None
