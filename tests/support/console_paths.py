"""Every page of the console and every kind of search of its list, with what is stored.

The benchmark measures these, and `tests/integration/test_page_plans.py` counts what they read. A
unit test holds that no route, filter, period or grouping is missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import Connection, text

from ingest.console.services.ranges import Range
from ingest.console.services.traffic import Split
from ingest.entities.entity import Entity
from ingest.ids import first_id
from ingest.store.search.filters import EVENT_STATES, MARKS
from tests.support.month.numbered import LARGE_CONVERSATION

_OPERATION = "list_events"
"""An operation of the API that has a page of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What pages and searches can be about, as text; most of it a week old."""

    now: datetime
    old: str
    """An event of a message that was received."""
    message: str
    dead: str
    """A dead event."""
    error: str
    raised: str
    """What that failed with, and where."""
    repeated: str
    """A delivery of an event that has several."""
    rejected: str
    """A delivery that is no event."""
    key: str
    """What signed the old event."""
    order: str
    event_id: str
    """Of the order, at the sender."""
    conversation: str
    phone: str
    contact: str
    large_conversation: str
    large_phone: str
    """The conversation with the most messages, and whom it is with."""
    replay: str
    erasure: str
    processor: str
    failure: str
    """The number of a group of failures."""


_ONE = {
    "old": "SELECT id FROM ingest.events WHERE type = 'message.received' AND id < :week"
    " ORDER BY type DESC, id DESC LIMIT 1",
    "message": "SELECT split_part(event_id, ':', 2) FROM ingest.events"
    " WHERE type = 'message.received' AND id < :week ORDER BY type DESC, id DESC LIMIT 1",
    "key": "SELECT key_id FROM ingest.deliveries WHERE id < :week ORDER BY id DESC LIMIT 1",
    "dead": "SELECT event FROM ingest.jobs WHERE state = 'dead' AND discarded_at IS NULL"
    " ORDER BY event DESC LIMIT 1",
    "error": "SELECT error_type FROM ingest.attempts LIMIT 1",
    "raised": "SELECT nullif(split_part(split_part(traceback, '  File ', -1), E'\\n', 1), '')"
    " FROM ingest.attempts LIMIT 1",
    "repeated": "SELECT delivery FROM ingest.duplicates ORDER BY delivery DESC LIMIT 1",
    "rejected": "SELECT id FROM ingest.deliveries WHERE rejected IS NOT NULL"
    " ORDER BY id DESC LIMIT 1",
    "order": "SELECT split_part(event_id, ':', 2) FROM ingest.events"
    " WHERE type = 'order.created' AND id < :week ORDER BY type DESC, id DESC LIMIT 1",
    "event_id": "SELECT event_id FROM ingest.events"
    " WHERE type = 'order.created' AND id < :week ORDER BY type DESC, id DESC LIMIT 1",
    "conversation": "SELECT conversation_id FROM ingest.conversations"
    " WHERE conversation_id > 20 ORDER BY conversation_id LIMIT 1",
    "contact": "SELECT contact_id FROM ingest.contacts"
    " WHERE contact_id > 20 ORDER BY contact_id LIMIT 1",
    "phone": "SELECT phone_number FROM ingest.conversations"
    " WHERE conversation_id > 20 ORDER BY conversation_id LIMIT 1",
    "large_phone": "SELECT phone_number FROM ingest.conversations"
    f" WHERE conversation_id = {LARGE_CONVERSATION}",
    "replay": "SELECT id FROM ingest.replays ORDER BY id LIMIT 1",
    "erasure": "SELECT id FROM ingest.erasures ORDER BY id DESC LIMIT 1",
    "processor": "SELECT name FROM ingest.processors WHERE paused_at IS NULL"
    " ORDER BY name DESC LIMIT 1",
    "failure": "SELECT id FROM ingest.failure_groups ORDER BY attempts DESC, id LIMIT 1",
}


def stored(connection: Connection, *, now: datetime | None = None) -> Stored:
    """Return what is in the database of a month (tests.support.month)."""
    moment = now or datetime.now(UTC)
    week: UUID = first_id(moment - timedelta(days=7))
    values = {
        name: str(connection.execute(text(sql), {"week": week} if ":week" in sql else {}).scalar())
        for name, sql in _ONE.items()
    }
    return Stored(now=moment, large_conversation=str(LARGE_CONVERSATION), **values)


Address = Callable[[Entity], str]


def paths(about: Stored, address: Address) -> Iterator[str]:
    """Every page, and every search of the list of events; `address` gives that of an entity."""
    yield from _overviews(about)
    yield from _others(about)
    for kind, name in _entities(about):
        yield address(Entity(kind=kind, value=name))
    large = address(Entity(kind="conversation", value=about.large_conversation))
    yield from (f"{large}?order=oldest", f"{large}?source=whatsapp")
    yield from ("/events", "/events?sort=oldest")
    old = first_id(about.now - timedelta(days=7))
    yield f"/events?before={old}"
    yield f"/events?after={old}"
    for q in searches(about):
        yield f"/events?{urlencode({'q': q})}"
    for q in ("state:dead", "type:order.*", "data.vip:true", f"phone:{about.phone}"):
        yield f"/events?{urlencode({'q': q, 'sort': 'oldest'})}"


def _overviews(about: Stored) -> Iterator[str]:
    part = {
        "since": (about.now - timedelta(days=3)).isoformat(),
        "until": (about.now - timedelta(days=2)).isoformat(),
    }
    yield "/"
    for period in Range:
        yield f"/?range={period}"
        yield from (f"/?by={split}&range={period}" for split in Split)
        yield f"/processors?range={period}"
        yield f"/processors/{about.processor}?range={period}"
        yield f"/failures/{about.failure}?range={period}"
        yield from (f"/refusals?{query}range={period}" for query in ("", "kind=rejected&"))
    yield f"/?{urlencode(part)}"
    yield from (f"/?{urlencode(part | {'by': split})}" for split in Split)
    yield f"/refusals?{urlencode(part)}"


def _others(about: Stored) -> Iterator[str]:
    yield from (
        "/failures",
        "/failures?state=all",
        "/processors",
        "/refusals",
        "/sources",
        "/alerts",
        "/live",
    )
    yield from (f"/live?{urlencode({'q': q})}" for q in ("type:tag.added", "data.vip:true"))
    for query in (
        {"q": "signature"},
        {"q": about.rejected},
        {"source": "awalchat"},
        {"reason": "signature_mismatch", "range": "week"},
        {"address": "198.51.100.7", "range": "week"},
    ):
        yield f"/refusals?{urlencode(query)}"
    yield from ("/retention", "/audit-log", "/audit-log?before=10000")
    yield from ("/erasures", "/erasures?before=200", f"/erasures/{about.erasure}")
    yield from ("/docs", "/docs?q=event", f"/docs/{_OPERATION}", "/search-words")
    for event in (about.old, about.dead):
        yield from (f"/events/{event}", f"/events/{event}/edit")
    yield f"/deliveries/{about.rejected}"
    yield f"/bulk-actions/{about.replay}"
    yield from (
        f"/events/export?{urlencode({'q': f'id:{about.old}', 'format': form})}"
        for form in ("csv", "jsonl")
    )


def _entities(about: Stored) -> Iterator[tuple[str, str]]:
    yield "order", about.order
    yield "message", about.message
    yield "contact", about.contact
    yield from (("conversation", about.conversation), ("phone", about.phone))
    yield from (("conversation", about.large_conversation), ("phone", about.large_phone))
    yield "order", "999999999"


def searches(about: Stored) -> Iterator[str]:
    """Searches of every kind: each filter, alone, negated where it may be, and some together."""
    for alone in _alone(about):
        yield alone
        if not alone.startswith(_NEVER_NEGATED):
            yield f"-{alone}"
    for state in EVENT_STATES:
        yield from (f"state:{state}", f"-state:{state}", f"type:order.* state:{state}")
        yield f"processor:{about.processor} state:{state}"
        yield f"replay:{about.replay} state:{state}"
    day = about.now - timedelta(days=3)
    since, until = f"since:{day.date()}", f"until:{(day + timedelta(days=1)).date()}"
    yield from ("since:1h", "since:7d", "until:7d", f"{since} {until}")
    yield f"{since} {until} state:dead"
    yield f'since:30d "{about.message}"'
    yield f"since:2d phone:{about.phone}"
    yield "-type:message.* -source:awalchat -state:succeeded"
    yield "source:shopify -type:orders/*"
    yield f"error:{about.error} type:order.*"
    yield f"error:{about.error} raised:{_quoted(about.raised)}"
    yield f"{about.order} type:order.*"
    yield "type:order.* data.vip:true"
    yield 'type:push "nobody wrote this"'


_NEVER_NEGATED = (
    *("since:", "until:", "id:", "delivery:", "replay:", "taken_back:"),
    *("conversation:", "phone:", "order:", "message:", "contact:"),
)


def _alone(about: Stored) -> Iterator[str]:
    for types in ("message.received", "order.*", "tag.added", "none.such", "*.created"):
        yield f"type:{types}"
    yield from (f"source:{slug}" for slug in ("awalchat", "github", "none"))
    yield from (f"processor:{name}" for name in (about.processor, "my_app.labels", "none"))
    yield from (f"error:{about.error}", "error:NoSuchError")
    yield from (f"raised:{_quoted(about.raised)}", 'raised:"nowhere"')
    yield from (f"is:{mark}" for mark in MARKS)
    yield from ("deliveries:>1", "deliveries:>2", "deliveries:1")
    yield from (f"replay:{about.replay}", "taken_back:4", "taken_back:999")
    yield from (f"key:{about.key}", "key:00000000")
    yield from (f"id:{about.old}", f"id:{about.event_id}", "id:none")
    yield f"delivery:{about.repeated}"
    yield from (f"{kind}:{name}" for kind, name in _entities(about))
    yield from ("phone:966599999999", "message:none", "contact:cus_77")
    yield from (f"data.message_id:{about.message}", "data.conversation_id:123", "data.vip:true")
    yield from (".event:order.created", "data.items.0.sku:A-7", "data.name:Customer*")
    yield from ("data.total:>4900", "data.total:>1000000", "data.created_at:>=2026-01-31")
    yield from (f'"{about.message}"', '"where is my order"', '"a text that nobody wrote"')
    yield about.order


def _quoted(value: str) -> str:
    spelled = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{spelled}"'
