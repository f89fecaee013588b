"""Which events concern a conversation, a phone number, an order, a message or a contact.

No index leads from those to events, and none is needed: the read model that the built-in processors
keep has them, with the ids of the events that made it. It is followed from a contact or a number to
conversations, and from those to messages and orders. What it does not know:

- an update that is named by its content (`conversation.updated`, `contact.updated`) and was
  followed by a later one; the changes of an order's status are kept, all of them;
- events that are not worked on yet, or failed. Those few are looked through for a field that names
  what was given, at most `LOOKED_THROUGH` in each state; `leaves_unfinished` says that there are
  more;
- events of types that the built-in processors do not handle;
- events of sources without a read model. Of the newest events, `NEWEST_LOOKED_THROUGH` within the
  times that are asked for, theirs are looked through likewise; `first_beyond` says where that ends.

Of a conversation or a number with more messages than `FOLLOWED`, the newest are followed, those
that were stored last; `is_cut` says so.

A search for a field (ingest.store.search.body_conditions) finds all of these, at the cost of
reading bodies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from ingest.ids import first_id
from ingest.sources import operator
from ingest.sources.base import FieldPath
from ingest.sources.registry import classes, entity_paths, naming
from ingest.store.search.body_conditions import (
    BodyTest,
    Condition,
    escape,
    has_field,
    has_phone,
)
from ingest.store.search.distinct import SOURCES
from ingest.store.search.id_range import Span
from ingest.store.search.sealed import passing
from ingest.store.sql import statement

KINDS = ("conversation", "phone", "order", "message", "contact")
NUMBERED = ("conversation", "order", "contact")
"""Kinds whose values are whole numbers in the read model; other senders name them by any text."""
LOOKED_THROUGH = 100
"""Each body is somewhere else: from the disk it takes 0.3 ms."""
NEWEST_LOOKED_THROUGH = 1_000
"""Reading so many bodies of 1 KB takes 10 ms; for a phone number each is parsed, in 40 ms."""
FOLLOWED = 200
"""Messages or orders of a conversation, and messages of a number. Each has up to fifteen names of
events, which are looked up for every sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When events were received that are asked for; None: no bound."""

    since: datetime | None = None
    until: datetime | None = None
    has_read_model: bool = True
    """Whether there are tables of the read model to follow."""

    @property
    def span(self) -> Span:
        """Return the ids of those events."""
        span = Span()
        low = span.low if self.since is None else first_id(self.since)
        return Span(low=low, high=span.high if self.until is None else first_id(self.until))


def concerns(kind: str, value: str, name: str, times: Times) -> Condition:
    """Return the condition that an event concerns the `kind` of thing called `value`. The names of
    its parameters begin with `name`.

    A phone number is that of whom the shop talks to: the shop's own would mean every message. It is
    found however it is written, there or here."""
    known = _known(kind, name) if times.has_read_model else {}
    tables = "".join(f"known_{table} AS MATERIALIZED ({sql}), " for table, sql in known.items())
    names = "".join(f" UNION {_NAMES[table]}" for table in known)
    mentioned, values = _mentioned(entity_paths(kind), kind, value, name)
    newest, of_newest = _among_newest(kind, value, f"{name}_newest", times)
    sql = f"""events.id = ANY(ARRAY(
        WITH RECURSIVE {SOURCES}, {tables} named (event_id) AS MATERIALIZED (
            SELECT unnest(CAST(:{name}_names AS text[])){names}
        )
        SELECT found.id FROM origin CROSS JOIN named CROSS JOIN LATERAL (
            SELECT id FROM ingest.events
            WHERE source = origin.slug AND event_id = named.event_id LIMIT 1
        ) AS found
        WHERE origin.slug <> ALL(CAST(:{name}_others AS text[]))
        UNION ALL
        SELECT events.id FROM ({_UNFINISHED}) AS unfinished
        JOIN ingest.events ON events.id = unfinished.event WHERE {mentioned}
        {newest}
    ))"""
    return sql, {
        **values,
        **of_newest,
        **_given(kind, value, name),
        f"{name}_names": _names(kind, value),
        f"{name}_others": _without_read_model(),
    }


def _without_read_model() -> list[str]:
    """Return the senders of which the read model has nothing; copies of any sender's events count
    as the operator's."""
    return [
        slug
        for slug, source in classes().items()
        if source.read_model is None and slug != operator.SLUG
    ]


def _known(kind: str, name: str) -> dict[str, str]:
    """Return the queries of `_KNOWN` with their parameters, which `_given` has."""
    given = f"CAST(:{name}_given AS {'bigint' if kind in NUMBERED else 'text'})"
    if kind == "phone":
        given = f"ingest.normal_phone({given})"
    written = f"CAST(:{name}_written AS text)"
    return {table: q.format(given=given, written=written) for table, q in _KNOWN[kind].items()}


def _given(kind: str, value: str, name: str) -> dict[str, str | None]:
    given = None if kind in NUMBERED and not is_bigint(value) else value
    return {f"{name}_given": given, f"{name}_written": value}


def is_cut(connection: Connection, kind: str, value: str) -> bool:
    """Return whether the read model has more of a thing than is followed: then not all events are
    found that concern it."""
    known = _known(kind, "about")
    cut = known.keys() & {"messages", "orders", "whatsapp_messages"}
    if kind in ("order", "message") or not cut:
        return False
    tables = ", ".join(f"known_{table} AS MATERIALIZED ({sql})" for table, sql in known.items())
    counts = ", ".join(f"(SELECT count(*) FROM known_{table})" for table in sorted(cut))
    query = statement(f"WITH {tables} SELECT greatest({counts}) >= {FOLLOWED}")
    return bool(connection.execute(query, _given(kind, value, "about")).scalar_one())


def leaves_unfinished(connection: Connection) -> bool:
    """Return whether there are more events that were not worked on than are looked through."""
    return bool(connection.execute(_LEAVES_UNFINISHED).scalar_one())


def first_beyond(connection: Connection, kinds: Sequence[str], times: Times) -> UUID | None:
    """Return the newest event that was not looked through for such kinds of things because it is
    too old; None: there is none."""
    if not any(map(naming, kinds)):
        return None
    bounds = {"low": times.span.low, "high": times.span.high, "skip": NEWEST_LOOKED_THROUGH}
    return connection.execute(_BEYOND, bounds).scalar_one_or_none()


def _among_newest(kind: str, value: str, name: str, times: Times) -> Condition:
    """Return what adds those of the newest events to a query that come from sources without a read
    model, and name a thing."""
    slugs = naming(kind)
    if not slugs:
        return "", {}
    mentioned, values = _mentioned(entity_paths(kind, slugs), kind, value, name)
    sql = f"""UNION ALL
        SELECT events.id FROM (
            SELECT id, source, type FROM ingest.events
            WHERE id >= CAST(:{name}_low AS uuid) AND id < CAST(:{name}_high AS uuid)
            ORDER BY id DESC LIMIT {NEWEST_LOOKED_THROUGH}
        ) AS events WHERE source = ANY(CAST(:{name}_sources AS text[])) AND {mentioned}"""
    return sql, {
        **values,
        f"{name}_low": times.span.low,
        f"{name}_high": times.span.high,
        f"{name}_sources": list(slugs),
    }


_BEYOND = statement(
    """
    SELECT id FROM ingest.events WHERE id >= :low AND id < :high
    ORDER BY id DESC OFFSET :skip LIMIT 1
    """
)


def is_bigint(value: str) -> bool:
    """Return whether a text is a whole number that a `bigint` holds."""
    digits = value.removeprefix("-")
    is_whole = digits.isascii() and digits.isdigit() and len(digits) < 20
    return is_whole and -(2**63) <= int(value) < 2**63


def _names(kind: str, value: str) -> list[str]:
    """Return the ids of events that are named after what they concern."""
    sources = classes().values()
    return [event_id for source in sources for event_id in source.event_ids(kind, value)]


def _mentioned(paths: Sequence[FieldPath], kind: str, value: str, name: str) -> Condition:
    """Return whether a body names it under one of the paths."""
    conditions, values = [], {}
    for n, (types, test) in enumerate(_tests(paths, kind, value, name)):
        condition, of_condition = test.condition
        values.update(of_condition)
        if types != "*":
            values[f"{name}_types_{n}"] = escape(types).replace("*", "%")
            condition = f"(events.type LIKE :{name}_types_{n} AND {condition})"
        conditions.append(condition)
    return "(" + " OR ".join(conditions or ["false"]) + ")", values


def _tests(
    paths: Sequence[FieldPath], kind: str, value: str, name: str
) -> list[tuple[str, BodyTest]]:
    """Return the tests of bodies, each with the types of events that it is for."""
    paths_by_types: dict[str, list[str]] = {}
    for path in paths:
        paths_by_types.setdefault(path.types, []).append(path.path)
    has = has_phone if kind == "phone" else has_field
    return [
        (types, has(of_types, value, f"{name}_field_{n}"))
        for n, (types, of_types) in enumerate(paths_by_types.items())
    ]


def opened_mentions(
    connection: Connection, kind: str, value: str, name: str, times: Times
) -> dict[str, list[UUID]]:
    """Return which encrypted bodies name what `concerns` looks for, as values of its parameters."""
    tests = [test for _, test in _tests(entity_paths(kind), kind, value, name)]
    passed = passing(connection, tests, _SEALED_UNFINISHED, {})
    slugs = naming(kind)
    if slugs:
        paths = entity_paths(kind, slugs)
        newest = [test for _, test in _tests(paths, kind, value, f"{name}_newest")]
        bounds = {"low": times.span.low, "high": times.span.high}
        passed |= passing(connection, newest, _SEALED_NEWEST, bounds)
    return passed


_KNOWN_STATUSES = ("sent", "delivered", "read", "failed", "played", "deleted")
_STATUSES = (*_KNOWN_STATUSES, *(status.upper() for status in _KNOWN_STATUSES))

_OF_MESSAGE = """message_id, conversation_id, received_event_id, status, status_event_id,
               last_event_id"""
_MESSAGES = f"SELECT {_OF_MESSAGE} FROM ingest.messages"


def _newest(columns: str, table: str, column: str, of: str) -> str:
    """SQL for the rows of `table` whose `column` is one of those that `of` selects: the `FOLLOWED`
    of all that were stored last.

    Equal entries of an index are in the order of their rows, so of each value they are read from
    its end. A range of one value keeps the planner to that: with an equation it reads and sorts all
    rows.
    """
    return f"""SELECT {columns} FROM ({of}) AS one (value) CROSS JOIN LATERAL (
            SELECT {columns}, {table}.ctid AS place FROM ingest.{table}
            WHERE {table}.{column} >= one.value AND {table}.{column} <= one.value
            ORDER BY {table}.{column} DESC LIMIT {FOLLOWED}
        ) AS newest ORDER BY place DESC LIMIT {FOLLOWED}"""


_IN_TALKS = "conversation_id = ANY(ARRAY(SELECT conversation_id FROM known_talks))"
_TALKS = "SELECT conversation_id FROM known_talks"
_TALKED = {
    "conversations": f"SELECT * FROM ingest.conversations WHERE {_IN_TALKS}",
    "messages": f"({_newest(_OF_MESSAGE, 'messages', 'conversation_id', _TALKS)})",
    "orders": _newest(
        "order_id, created_event_id, last_event_id", "orders", "conversation_id", _TALKS
    ),
}
_FROM_NUMBER = _newest("{columns}", "messages", "from_number_normal", "SELECT {{given}}")
# Rows of the read model, each table's found with those before it. `talks` are ids of conversations,
# which need not have a row.
_KNOWN: dict[str, dict[str, str]] = {
    "message": {"messages": f"{_MESSAGES} WHERE message_id = {{given}}"},
    "order": {"orders": "SELECT * FROM ingest.orders WHERE order_id = {given}"},
    "conversation": {"talks": "SELECT {given} AS conversation_id"} | _TALKED,
    "contact": {
        "contacts": "SELECT * FROM ingest.contacts WHERE contact_id = {given}",
        "talks": "SELECT conversation_id FROM ingest.conversations WHERE contact_id = {given}",
    }
    | _TALKED
    | {
        "whatsapp_messages": _newest(
            "message_id", "whatsapp_messages", "contact_user_id", "SELECT {written}"
        ),
    },
    "phone": {
        "contacts": "SELECT * FROM ingest.contacts WHERE phone_normal = {given}",
        "talks": f"""SELECT conversation_id FROM ingest.conversations
            WHERE phone_number_normal = {{given}}
            UNION SELECT conversation_id FROM ingest.conversations
            WHERE contact_id = ANY(ARRAY(SELECT contact_id FROM known_contacts))
            UNION ({_FROM_NUMBER.format(columns="conversation_id")})""",
    }
    | _TALKED
    | {
        "messages": f"{_TALKED['messages']} UNION ({_FROM_NUMBER.format(columns=_OF_MESSAGE)})",
        "whatsapp_messages": _newest(
            "message_id", "whatsapp_messages", "contact_phone", "SELECT {given}"
        ),
    },
}

# The ids of the events that made those rows. A message's events are named alike but for the status:
# of a message that has one, every status that there may be is looked for.
_NAMES = {
    "talks": "SELECT 'conversation.created:' || conversation_id FROM known_talks",
    "contacts": """SELECT unnest(ARRAY['contact.created:' || contact_id, last_event_id])
            FROM known_contacts
            UNION SELECT substr(version, strpos(version, ' ') + 1)
            FROM known_contacts CROSS JOIN jsonb_each_text(versions) AS field (name, version)""",
    "conversations": """SELECT unnest(ARRAY[created_event_id, updated_event_id, last_event_id])
            FROM known_conversations
            UNION SELECT substr(version, strpos(version, ' ') + 1)
            FROM known_conversations
            CROSS JOIN jsonb_each_text(versions) AS field (name, version)""",
    "messages": f"""SELECT unnest(ARRAY[received_event_id, status_event_id, last_event_id])
            FROM known_messages
            UNION SELECT split_part(status_event_id, ':', 1) || ':'
                || split_part(status_event_id, ':', 2) || ':' || possible.status
            FROM known_messages
            CROSS JOIN unnest(ARRAY{list(_STATUSES)}) AS possible (status)
            WHERE known_messages.status IS NOT NULL""",
    "whatsapp_messages": """SELECT 'messages:' || message_id FROM known_whatsapp_messages
            UNION SELECT 'statuses:' || message_id || ':' || status
            FROM ingest.whatsapp_message_statuses
            WHERE message_id = ANY(ARRAY(SELECT message_id FROM known_whatsapp_messages))""",
    "orders": """SELECT unnest(ARRAY['order.created:' || order_id, created_event_id,
                                last_event_id]) FROM known_orders
            UNION SELECT event_id FROM ingest.order_status_changes
            WHERE order_id = ANY(ARRAY(SELECT order_id FROM known_orders))""",
}

# In the order of their indexes, so that the planner takes those.
_UNFINISHED_KINDS = (
    """SELECT event FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL
       ORDER BY event DESC""",
    "SELECT event FROM ingest.jobs WHERE discarded_at IS NOT NULL ORDER BY event DESC",
    "SELECT event FROM ingest.unhandled ORDER BY event DESC",
    "SELECT event FROM ingest.jobs WHERE due_at IS NOT NULL ORDER BY queue, due_at",
    "SELECT event FROM ingest.jobs WHERE lease_until IS NOT NULL ORDER BY lease_until",
)
_UNFINISHED = " UNION ".join(f"({kind} LIMIT {LOOKED_THROUGH})" for kind in _UNFINISHED_KINDS)
_FURTHER = " OR ".join(
    f"EXISTS ({kind} OFFSET {LOOKED_THROUGH} LIMIT 1)" for kind in _UNFINISHED_KINDS
)
_LEAVES_UNFINISHED = statement(f"SELECT {_FURTHER}")
_SEALED = """CROSS JOIN LATERAL (
        SELECT id, body_key, body FROM ingest.deliveries
        WHERE body_key IS NOT NULL AND id = candidates.event LIMIT 1
    ) AS sealed"""
_SEALED_UNFINISHED = f"SELECT sealed.* FROM ({_UNFINISHED}) AS candidates {_SEALED}"
_SEALED_NEWEST = f"""
    SELECT sealed.* FROM (
        SELECT id AS event FROM ingest.events WHERE id >= :low AND id < :high
        ORDER BY id DESC LIMIT {NEWEST_LOOKED_THROUGH}
    ) AS candidates {_SEALED}
"""
