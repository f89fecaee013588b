"""The alerts, and the messages about them that wait for their channels.

An alert is a row from the moment its condition holds until it has recovered, and is kept for a
while. A message waits in its channel's line until it is sent or given up. Whoever takes one makes
it invisible to others for the length of a lease. A process that is killed between the sending and
its record sends the message again after that: it has the same id then.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause

from ingest.errors import NotFound
from ingest.store.sql import statement

KEPT = timedelta(days=30)
"""Recovered alerts and ended messages are deleted after that."""
GIVEN_UP_AFTER = timedelta(days=1)
"""A message older than that is not tried again: the console shows the alert anyway."""
LEASE = timedelta(minutes=3)
"""Longer than any channel may take for a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert."""

    id: int
    """0: it is not stored yet."""
    rule: str
    subject: str
    """The processor, source or folder that it is about; empty: there is only one."""
    sentence: str
    value: float
    since: datetime
    """When its condition was first seen."""
    seen_at: datetime
    """When it was last seen."""
    fired_at: datetime | None = None
    """None: it has not held long enough."""
    clear_since: datetime | None = None
    """None: the condition holds, as far as is known. Otherwise since when it does not."""
    recovered_at: datetime | None = None
    """When it ended. It has recovered if `clear_since` is there too; otherwise nothing was known of
    it any more, and no recovery is told."""
    told_at: datetime | None = None
    """When a message about it was last written; None: never."""
    told_value: float | None = None
    """The value in that message, or a lower one that was seen since."""
    recovery_told_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None

    @property
    def is_active(self) -> bool:
        """Return whether its condition holds now, as far as is known."""
        return self.recovered_at is None and self.clear_since is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message that was taken to be sent."""

    id: UUID
    channel: str
    made_at: datetime
    content: dict[str, Any]
    attempts: int
    """With this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """What became of a channel's messages in the last days."""

    channel: str
    waiting: int
    sent: int
    given_up: int
    last_sent_at: datetime | None
    next_at: datetime | None
    """When the oldest waiting one is tried next."""
    attempts: int
    """Of the oldest waiting one."""
    error: str | None
    """Why that one, or the last one that was tried and given up, was not sent."""


_TAKE_TURN = statement(
    """
    INSERT INTO ingest.alert_turns (purpose, at, by) VALUES (:purpose, :now, :by)
    ON CONFLICT (purpose) DO UPDATE SET at = excluded.at, by = excluded.by
    WHERE alert_turns.at <= CAST(:now AS timestamptz) - CAST(:every AS interval)
       OR alert_turns.at > CAST(:now AS timestamptz) + CAST(:every AS interval)
    RETURNING at
    """
)


def take_turn(
    connection: Connection, purpose: str, *, by: str, every: timedelta, now: datetime
) -> bool:
    """Return whether it is this process's turn: nobody has had one for the span `every`.

    A time ahead of `now` is that of a clock that was wrong.
    """
    parameters = {"purpose": purpose, "by": by, "every": every, "now": now}
    return connection.execute(_TAKE_TURN, parameters).first() is not None


_HOLD_TURN = statement("SELECT by FROM ingest.alert_turns WHERE purpose = :purpose FOR UPDATE")


def hold_turn(connection: Connection, purpose: str, *, by: str) -> bool:
    """Return whether it is still this process's turn, and let nobody take it until the transaction
    ends."""
    return bool(connection.execute(_HOLD_TURN, {"purpose": purpose}).scalar() == by)


_COLUMNS = """id, rule, subject, sentence, value, since, seen_at, fired_at, clear_since,
    recovered_at, told_at, told_value, recovery_told_at, acknowledged_at, acknowledged_by"""

_UNFINISHED = statement(
    f"""
    SELECT {_COLUMNS} FROM ingest.alerts
    WHERE recovered_at IS NULL
       OR (clear_since IS NOT NULL AND told_at IS NOT NULL AND recovery_told_at IS NULL)
    ORDER BY id
    """
)


def unfinished(connection: Connection) -> list[Alert]:
    """Return the alerts that have not ended, and those whose recovery is not told yet."""
    return _alerts(connection.execute(_UNFINISHED))


_ACTIVE = statement(
    f"""
    SELECT {_COLUMNS} FROM ingest.alerts
    WHERE recovered_at IS NULL AND clear_since IS NULL ORDER BY id LIMIT :limit
    """
)


def active(connection: Connection, *, limit: int = 100) -> list[Alert]:
    """Return the alerts whose conditions hold, those that have not fired yet included."""
    return _alerts(connection.execute(_ACTIVE, {"limit": limit}))


_NEWEST = statement(
    f"""
    SELECT {_COLUMNS} FROM ingest.alerts
    WHERE fired_at IS NOT NULL AND (recovered_at IS NULL OR :recovered)
    ORDER BY recovered_at IS NOT NULL, id DESC LIMIT :limit
    """
)


def newest(connection: Connection, *, recovered: bool, limit: int = 200) -> list[Alert]:
    """Return the alerts that have fired, the newest first, then the recovered ones if asked for."""
    return _alerts(connection.execute(_NEWEST, {"recovered": recovered, "limit": limit}))


_LAST_TOLD = statement(
    """
    SELECT rule, subject, max(told_at) AS told_at FROM ingest.alerts
    WHERE told_at > :since GROUP BY rule, subject
    """
)


def last_told(connection: Connection, *, since: datetime) -> dict[tuple[str, str], datetime]:
    """Return when each rule and subject was last told, recovered alerts included."""
    rows = connection.execute(_LAST_TOLD, {"since": since})
    return {(row.rule, row.subject): row.told_at for row in rows}


_INSERT = statement(
    """
    INSERT INTO ingest.alerts (rule, subject, sentence, value, since, seen_at, fired_at)
    VALUES (:rule, :subject, :sentence, :value, :since, :seen_at, :fired_at)
    """
)
_UPDATE = statement(
    """
    UPDATE ingest.alerts SET sentence = :sentence, value = :value, seen_at = :seen_at,
           fired_at = :fired_at, clear_since = :clear_since, recovered_at = :recovered_at,
           told_at = :told_at, told_value = :told_value, recovery_told_at = :recovery_told_at
    WHERE id = :id
    """
)
_DELETE = statement("DELETE FROM ingest.alerts WHERE id = ANY(CAST(:ids AS bigint[]))")


def save(connection: Connection, alerts: Sequence[Alert]) -> None:
    """Store alerts as they are now. Acknowledgements are not touched."""
    for alert in alerts:
        connection.execute(_UPDATE if alert.id else _INSERT, _parameters(alert))


def delete(connection: Connection, ids: Sequence[int]) -> None:
    """Delete alerts that never fired."""
    if ids:
        connection.execute(_DELETE, {"ids": list(ids)})


_GIVE_UP = statement(
    "UPDATE ingest.alert_messages SET next_at = NULL WHERE next_at IS NOT NULL"
    " AND made_at <= CAST(:now AS timestamptz) - CAST(:age AS interval)"
    " AND channel <> ALL(CAST(:channels AS text[]))"
)


def give_up(connection: Connection, *, channels: Iterable[str], now: datetime) -> None:
    """Give up the messages that have waited for `GIVEN_UP_AFTER` for others than `channels`, which
    are configured: nobody tries those."""
    parameters = {"now": now, "age": GIVEN_UP_AFTER, "channels": list(channels)}
    connection.execute(_GIVE_UP, parameters)


_FORGET_ALERTS = statement(
    "DELETE FROM ingest.alerts WHERE recovered_at < CAST(:now AS timestamptz) - CAST(:age AS"
    " interval)"
)
_FORGET_MESSAGES = statement(
    "DELETE FROM ingest.alert_messages WHERE next_at IS NULL"
    " AND made_at < CAST(:now AS timestamptz) - CAST(:age AS interval)"
)


def forget(connection: Connection, *, now: datetime) -> None:
    """Delete what is over for longer than `KEPT`."""
    for forgetting in (_FORGET_ALERTS, _FORGET_MESSAGES):
        connection.execute(forgetting, {"now": now, "age": KEPT})


_ACKNOWLEDGE = statement(
    f"""
    UPDATE ingest.alerts SET acknowledged_at = coalesce(acknowledged_at, now()),
           acknowledged_by = coalesce(acknowledged_by, :by)
    WHERE id = :id AND fired_at IS NOT NULL RETURNING {_COLUMNS}
    """
)
_UNACKNOWLEDGE = statement(
    f"""
    UPDATE ingest.alerts SET acknowledged_at = NULL, acknowledged_by = NULL
    WHERE id = :id AND fired_at IS NOT NULL RETURNING {_COLUMNS}
    """
)


def acknowledge(connection: Connection, number: int, *, by: str) -> Alert:
    """Record that somebody has seen an alert; the first one stays recorded.

    Raises:
        NotFound: there is no alert of that number, or it has not fired.
    """
    return _changed(connection, _ACKNOWLEDGE, {"id": number, "by": by})


def unacknowledge(connection: Connection, number: int) -> Alert:
    """Record that nobody looks after an alert any more: it is told again as before. Raises as
    `acknowledge`."""
    return _changed(connection, _UNACKNOWLEDGE, {"id": number})


def _changed(connection: Connection, change: TextClause, parameters: Mapping[str, Any]) -> Alert:
    row = connection.execute(change, parameters).mappings().first()
    if row is None:
        raise NotFound(f"There is no alert {parameters['id']}.", reason="no_alert")
    return Alert(**row)


_QUEUE = statement(
    """
    INSERT INTO ingest.alert_messages (id, channel, content, made_at, next_at)
    VALUES (:id, :channel, CAST(:content AS jsonb), :now, :now)
    """
)


def queue(
    connection: Connection,
    message_id: UUID,
    channel: str,
    content: Mapping[str, Any],
    *,
    now: datetime,
) -> None:
    """Put a message into the line of a channel."""
    parameters = {"id": message_id, "channel": channel, "content": json.dumps(content), "now": now}
    connection.execute(_QUEUE, parameters)


# The oldest message of each channel only: so they arrive in their order, and a channel that is down
# costs one attempt at a time. Of several processes, one finds `next_at` as it read it.
_TAKE = statement(
    """
    UPDATE ingest.alert_messages m
    SET next_at = CAST(:now AS timestamptz) + CAST(:lease AS interval), attempts = m.attempts + 1
    FROM (
        SELECT DISTINCT ON (channel) id, next_at FROM ingest.alert_messages
        WHERE next_at IS NOT NULL ORDER BY channel, number
    ) AS first
    WHERE m.id = first.id AND first.next_at <= :now AND m.next_at = first.next_at
      AND m.channel = ANY(CAST(:channels AS text[]))
    RETURNING m.id, m.channel, m.made_at, m.content, m.attempts
    """
)


def take(connection: Connection, channels: Sequence[str], *, now: datetime) -> list[Outgoing]:
    """Take the first message of each channel that is due; nobody else gets it for a while."""
    parameters = {"now": now, "lease": LEASE, "channels": list(channels)}
    return [Outgoing(**row) for row in connection.execute(_TAKE, parameters).mappings()]


_SENT = statement(
    """
    UPDATE ingest.alert_messages SET sent_at = :now, next_at = NULL, error = NULL
    WHERE id = :id AND attempts = :attempts
    """
)


def sent(connection: Connection, message: Outgoing, *, now: datetime) -> None:
    """Record that a message was sent."""
    connection.execute(_SENT, {"id": message.id, "attempts": message.attempts, "now": now})


_FAILED = statement(
    """
    UPDATE ingest.alert_messages SET next_at = :next_at, error = :error
    WHERE id = :id AND attempts = :attempts
    """
)


def failed(
    connection: Connection, message: Outgoing, error: str, *, next_at: datetime | None
) -> None:
    """Record why a message was not sent, and when it is tried again; None: it is given up."""
    connection.execute(
        _FAILED,
        {"id": message.id, "attempts": message.attempts, "error": error, "next_at": next_at},
    )


_CHANNELS = statement(
    """
    SELECT channel, count(next_at) AS waiting, count(sent_at) AS sent,
           count(*) FILTER (WHERE next_at IS NULL AND sent_at IS NULL) AS given_up,
           max(sent_at) AS last_sent_at,
           (array_agg(next_at ORDER BY number) FILTER (WHERE next_at IS NOT NULL))[1] AS next_at,
           coalesce((array_agg(attempts ORDER BY number)
                     FILTER (WHERE next_at IS NOT NULL))[1], 0) AS attempts,
           coalesce(
               (array_agg(error ORDER BY number) FILTER (WHERE next_at IS NOT NULL))[1],
               (array_agg(error ORDER BY number DESC) FILTER (WHERE sent_at IS NULL
                                                              AND next_at IS NULL
                                                              AND error IS NOT NULL))[1]
           ) AS error
    FROM ingest.alert_messages GROUP BY channel ORDER BY channel
    """
)


def channel_states(connection: Connection) -> dict[str, ChannelState]:
    """Return the state of each channel that has messages, by its name."""
    rows = connection.execute(_CHANNELS).mappings()
    return {row["channel"]: ChannelState(**row) for row in rows}


_OLDEST_WAITING = statement(
    """
    SELECT channel, min(made_at) AS made_at FROM ingest.alert_messages
    WHERE next_at IS NOT NULL GROUP BY channel ORDER BY channel
    """
)


def oldest_waiting(connection: Connection) -> dict[str, datetime]:
    """Return when the oldest message that waits was written, for each channel that has one."""
    return {row.channel: row.made_at for row in connection.execute(_OLDEST_WAITING)}


_TAKING = statement(
    """
    SELECT channel FROM (
        SELECT DISTINCT ON (channel) channel, sent_at FROM ingest.alert_messages
        WHERE next_at IS NULL ORDER BY channel, number DESC
    ) AS last
    WHERE sent_at IS NOT NULL
    """
)


def taking_channels(connection: Connection) -> set[str]:
    """Return the channels whose last message that does not wait was sent, and not given up."""
    return set(connection.execute(_TAKING).scalars())


def _alerts(result: Any) -> list[Alert]:
    return [Alert(**row) for row in result.mappings()]


def _parameters(alert: Alert) -> dict[str, Any]:
    names = (
        *("id", "rule", "subject", "sentence", "value", "since", "seen_at", "fired_at"),
        *("clear_since", "recovered_at", "told_at", "told_value", "recovery_told_at"),
    )
    return {name: getattr(alert, name) for name in names}
