"""The operators' actions: who, when, what, to what, why. They are never deleted."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from ingest.store.pipeline.deliveries import Also
from ingest.store.sql import statement


class Author(Protocol):
    """Whoever acts: a person, or a program with a token."""

    @property
    def name(self) -> str:
        """The name that is shown."""

    @property
    def via(self) -> str:
        """How they came in."""

    @property
    def subject(self) -> str | None:
        """Who it is for ever, if the name may change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action of a person, or of a program with a token."""

    id: int
    at: datetime
    by: str
    action: str
    target: str
    reason: str | None
    replay: int | None
    """The bulk action that this began."""
    via: str | None
    """How the author came in: `password`, `oidc`, `token`, `loopback` (from the console's own
    machine) or `command line`; None: the action is of before this was recorded."""
    subject: str | None
    """Who the author is for ever, where the name may change: the provider's `sub`, and the
    provider."""


_RECORD = statement(
    "INSERT INTO ingest.actions (at, by, action, target, reason, replay, via, subject)"
    " VALUES (coalesce(CAST(:at AS timestamptz), now()), :by, :action, :target, :reason, :replay,"
    " :via, :subject)"
)


def record(
    connection: Connection,
    *,
    by: Author,
    action: str,
    target: str,
    reason: str | None = None,
    replay: int | None = None,
    at: datetime | None = None,
) -> None:
    """Record an action, in the transaction that performs it. `at` is when it began, of one that
    takes long."""
    connection.execute(
        _RECORD,
        {
            "by": by.name,
            "action": action,
            "target": target,
            "reason": reason,
            "replay": replay,
            "at": at,
            "via": by.via,
            "subject": by.subject,
        },
    )


def also(*, by: Author, action: str, target: str, reason: str | None) -> Also:
    """Return what records an action in the statement that stores a delivery."""
    sql = """recorded AS (
        INSERT INTO ingest.actions (by, action, target, reason, via, subject)
        VALUES (%b::text, %b::text, %b::text, %b::text, %b::text, %b::text)
    )"""
    return Also(sql, (by.name, action, target, reason, by.via, by.subject))


_COLUMNS = "id, at, by, action, target, reason, replay, via, subject"
_LAST = statement("SELECT coalesce(max(id), 0) FROM ingest.actions")
_LAST_OF = statement(
    """
    SELECT max(id) FROM ingest.actions
    WHERE id > :after AND by = :by AND via = :via
      AND subject IS NOT DISTINCT FROM CAST(:subject AS text)
    """
)
_ONE = statement(f"SELECT {_COLUMNS} FROM ingest.actions WHERE id = :id")


def last(connection: Connection) -> int:
    """Return the number of the newest action; 0: there is none."""
    number: int = connection.execute(_LAST).scalar_one()
    return number


def last_of(connection: Connection, by: Author, *, after: int) -> int | None:
    """Return the number of somebody's newest action whose number is over `after`; None: there is
    none."""
    whose = {"by": by.name, "via": by.via, "subject": by.subject}
    number: int | None = connection.execute(_LAST_OF, {"after": after, **whose}).scalar()
    return number


def one(connection: Connection, number: int) -> Action | None:
    """Return an action; None: there is none of that number."""
    row = connection.execute(_ONE, {"id": number}).mappings().first()
    return None if row is None else Action(**row)


_NEWEST = statement(
    f"""
    SELECT {_COLUMNS} FROM ingest.actions
    WHERE CAST(:before AS bigint) IS NULL OR id < :before
    ORDER BY id DESC LIMIT :limit
    """
)


def newest(connection: Connection, *, limit: int, before: int | None = None) -> list[Action]:
    """Return the newest actions, those before the number `before`."""
    rows = connection.execute(_NEWEST, {"limit": limit, "before": before}).mappings()
    return [Action(**row) for row in rows]


# The newest actions are looked at, for the log has no index of targets.
_ABOUT = statement(
    f"""
    SELECT {_COLUMNS} FROM (
        SELECT {_COLUMNS} FROM ingest.actions ORDER BY id DESC LIMIT :examined
    ) AS newest
    WHERE target = :target OR starts_with(target, :target || ' ')
    ORDER BY id DESC LIMIT :limit
    """
)
ACTIONS_EXAMINED = 5_000


def about(connection: Connection, target: str, *, limit: int) -> list[Action]:
    """Return the newest actions on a target, of the newest `ACTIONS_EXAMINED` of all."""
    parameters = {"target": target, "examined": ACTIONS_EXAMINED, "limit": limit}
    return [Action(**row) for row in connection.execute(_ABOUT, parameters).mappings()]


# No index leads to a processor's entries: the newest are looked through. The action says which
# targets are names of processors, the bulk action which processor it was limited to.
_OF_PROCESSOR = statement(
    f"""
    SELECT {_COLUMNS} FROM (
        SELECT {_COLUMNS} FROM ingest.actions ORDER BY id DESC LIMIT :examined
    ) AS a
    WHERE (action IN ('pause', 'resume', 'limit', 'limit as declared', 'run', 'close breaker',
                      'probe')
           AND replay IS NULL AND target = :name)
       OR (action = 'retry' AND target = split_part(target, ' ', 1) || ' for ' || :name)
       OR EXISTS (SELECT FROM ingest.replays
                  WHERE replays.id = a.replay AND selection ->> 'processor' = :name)
    ORDER BY id DESC LIMIT :limit
    """
)


def of_processor(connection: Connection, name: str, *, limit: int) -> list[Action]:
    """Return the newest actions on a processor: its pauses, and the bulk actions of its jobs alone.

    Of the newest `ACTIONS_EXAMINED` of all.
    """
    parameters = {"name": name, "limit": limit, "examined": ACTIONS_EXAMINED}
    return [Action(**row) for row in connection.execute(_OF_PROCESSOR, parameters).mappings()]
