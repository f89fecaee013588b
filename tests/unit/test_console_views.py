"""What viewers do not see, what of an arriving event is looked at, what buttons speak of."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ingest import settings
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.pages.bulk_action import sample_selection
from ingest.console.pages.events import bulk_scope
from ingest.console.pages.live import is_checkable, matches
from ingest.console.services import event_view
from ingest.console.ui import masking
from ingest.console.ui.search_help import TOPICS, Piece, marked
from ingest.query import FILTERS, Problem, parse
from ingest.store.bulk.replay import Counts, Operation, Work
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports.event_detail import DeliveryRecord, EventHistory
from ingest.store.reports.refused_requests import Refusal
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.views import View

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
VIEWER = Identity(name="v", role=Role.VIEWER, via="password")
OPERATOR = Identity(name="o", role=Role.OPERATOR, via="password")
EVENT = ListedEvent(
    id=UUID(int=1),
    source="awalchat",
    event_id="order.created:790",
    type="order.created",
    state="dead",
    received_at=NOW,
    deliveries=1,
    conflicts=False,
    error="ValueError: 966512345678 is no order",
)
DELIVERY = DeliveryRecord(
    id=UUID(int=1),
    received_at=NOW,
    conflict=False,
    kept=True,
    part_of=None,
    key_id="k",
    headers=[],
    body=b"{}",
)
OPERATION = Operation(
    id=1,
    action="replay",
    status="finished",
    requested_at=NOW,
    requested_by="o",
    finished_at=NOW,
    reason=None,
    selection=EventFilter(),
    counts=Counts(),
    work=Work(),
    taking_back=False,
    total=0,
    rate=None,
    background=True,
    problem=None,
)
PAUSED = ProcessorRecord(
    name="crm",
    types=("order.*",),
    queue="events",
    batch=False,
    threads=1,
    max_attempts=8,
    timeout_s=30.0,
    registered_at=NOW,
    paused_at=NOW,
    paused_by="o",
    pause_reason="until +966 51 234 5678 calls back",
    pending=0,
    retrying=0,
    running=0,
    dead=0,
    schedule=None,
)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("966512345678", "••••••••••78"),
        ("call +966512345678 now", "call •••••••••••78 now"),
        ("order.created:790", "order.created:790"),
        ("message.received:wamid.HBgMOTY2NTAwMDAwMDAwFQ", "message.received:wamid.••••AwFQ"),
        ("true_966500000000%40c.us", "true_••••••••••00%40c.us"),
        ("+966 51 234 5678", "•••• •• ••• ••78"),
        ("966-512-345-678", "•••-•••-•••-•78"),
        ("(0966) 512.345/678", "(••••) •••.•••/•78"),
        ("+966\u00a051\u2009234\u20115678", "••••\u00a0••\u2009•••\u2011••78"),
        ("\u2066+966 51 234 5678\u2069", "\u2066•••• •• ••• ••78\u2069"),
        ("966\u200e512\u200f345678", "•••\u200e•••\u200f••••78"),
        ("٩٦٦٥١٢٣٤٥٦٧٨", "••••••••••٧٨"),
        ("+٩٦٦ ٥١ ٢٣٤ ٥٦٧٨", "•••• •• ••• ••٧٨"),  # noqa: RUF001
        ("۹۶۶-۵۱۲-۳۴۵-۶۷۸", "•••-•••-•••-•۷۸"),
        ("966_512_345_678", "•••_•••_•••_•78"),
        ("%2B966%2051%20234%205678", "%2B•••%••••%•••••%••••78"),
        ("sms.sent.966512345678", "sms.sent.••••••••••78"),
        ("call 512 34 56 or 798", "call ••• •• 56 or 798"),
        ("order.v2.created:790", "order.v2.created:790"),
        ("01939f5e-1234-7567-8901-123456789012", "01939f5e-1234-7567-8901-123456789012"),
        ("00000000-0000-0000-0000-966512345678", "••••••••-••••-••••-••••-••••••••••78"),
    ],
)
def test_what_could_be_a_phone_number_is_masked(text: str, masked: str) -> None:
    assert masking.mask_phones(text) == masked


def test_a_long_text_is_masked_at_once() -> None:
    began = time.process_time()
    for text in ("1 " * 50_000, "1     x" * 20_000, "+966 51 " * 20_000, "%20" * 50_000):
        masking.mask_phones(text)
    assert time.process_time() - began < 20


def test_a_number_in_a_type_is_masked_wherever_the_type_is_shown() -> None:
    event = replace(EVENT, type="sms.966512345678", event_id="sms.966-512-345-678:1")
    (shown,) = masking.events([event], masked=True)
    assert (shown.type, shown.event_id) == ("sms.••••••••••78", "sms.•••-•••-•••-•78:1")
    history = EventHistory(
        id=EVENT.id,
        source=EVENT.source,
        event_id=event.event_id,
        type=event.type,
        state="dead",
        received_at=NOW,
        delivered=1,
        deliveries=(DELIVERY,),
        jobs=(),
    )
    one = event_view.from_history(history, masked=True)
    assert (one.type, one.event_id) == (shown.type, shown.event_id)
    done = replace(OPERATION, selection=EventFilter(types=("sms.966512345678",)))
    assert masking.bulk_action(done, masked=True).selection.types == ("sms.••••••••••78",)


def test_a_masked_refusal_tells_no_number_of_its_path() -> None:
    refusal = Refusal(
        reason="not_found",
        at=NOW,
        source="+966 51 234 5678",
        client="10.0.0.1",
        detail={"path": "/webhooks/966512345678", "user-agent": "x 966512345678"},
    )
    (shown,) = masking.refusals([refusal], masked=True)
    assert "345" not in f"{shown.source} {shown.detail}"
    assert masking.refusals([refusal], masked=False) == (refusal,)


def test_a_masked_processor_does_not_tell_why_it_is_paused() -> None:
    (shown,) = masking.processors([PAUSED], masked=True)
    assert shown.pause_reason == masking.HIDDEN
    assert masking.processors([PAUSED], masked=False) == (PAUSED,)


@pytest.mark.parametrize("pattern", ["sms.9*", "*5678", "sms.٩*", "*1*"])
def test_viewers_do_not_guess_a_number_in_a_type(pattern: str) -> None:
    given = settings.load(standalone=True, console_mask_viewers=True)
    text = f"type:{pattern} type:order.v2.created type:order.*"
    found = masking.parse(given, VIEWER, text, now=NOW)
    assert found.selection.types == ("order.v2.created", "order.*")
    assert found.problems


def test_a_masked_list_names_the_error_and_not_what_it_says() -> None:
    (shown,) = masking.events([EVENT], masked=True)
    assert shown.error == "ValueError"
    assert masking.events([EVENT], masked=False) == (EVENT,)


@pytest.mark.parametrize("text", ["data.from:9665", '"free text"', "phone:966512345678"])
def test_viewers_do_not_find_what_they_do_not_see(text: str) -> None:
    given = settings.load(standalone=True, console_mask_viewers=True)
    found = masking.parse(given, VIEWER, f"state:dead {text}", now=NOW)
    assert found.selection == EventFilter(state="dead")
    assert "Viewers" in found.problems[-1].message
    assert not masking.parse(given, OPERATOR, text, now=NOW).problems


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (EventFilter(), True),
        (EventFilter(types=("order.*",)), True),
        (EventFilter(types=("order.?reated",)), False),
        (EventFilter(types=("message.*", "order.created")), True),
        (EventFilter(state="succeeded"), False),
        (EventFilter(source="other"), False),
        (EventFilter(search="CREATED:79"), True),
        (EventFilter(search=("790", "791")), False),
    ],
)
def test_what_arrives_is_filtered(selection: EventFilter, expected: bool) -> None:
    assert matches(selection, EVENT) is expected
    assert is_checkable(selection)


def test_what_a_line_does_not_tell_is_not_filtered_by() -> None:
    for field in ({"processor": "x"}, {"since": NOW}, {"fields": (("data.a", "1"),)}):
        assert not is_checkable(replace(EventFilter(), **field))


def test_the_buttons_and_the_preview_speak_of_what_is_touched() -> None:
    of_orders, by_crm = EventFilter(types=("order.*",)), EventFilter(processor="crm")
    assert bulk_scope(EventFilter(state="retrying")) == {"replay": "all", "discard": "all"}
    assert bulk_scope(of_orders) == {"replay": "all dead and unhandled", "discard": "all dead"}
    assert bulk_scope(by_crm) == {"replay": "all dead", "discard": "all dead"}
    for selection, counts, state in (
        (of_orders, Counts(jobs=2, events=3), "dead"),
        (of_orders, Counts(events=3), "unhandled"),
        (by_crm, Counts(), "dead"),
        (EventFilter(state="retrying"), Counts(jobs=2), "retrying"),
        (EventFilter(error_type="E"), Counts(jobs=2), None),
    ):
        assert sample_selection(selection, counts).state == state


def test_each_example_of_the_help_is_understood_and_each_filter_has_one() -> None:
    examples = [example.q for topic in TOPICS for example in topic.examples]
    assert [q for q in examples if parse(q, now=NOW).problems] == []
    assert [name for name in FILTERS if not any(f"{name}:" in q for q in examples)] == []


def test_problems_are_marked_where_they_are() -> None:
    text = 'type:x  stat:dead "a text" -since:2h'
    pieces = marked(text, parse(text, now=NOW).problems)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces if piece.is_problem] == ["stat:dead", "-since:2h"]
    whole = Problem(text=text, position=0, message="hidden")
    assert marked(text, (*parse(text, now=NOW).problems, whole)) == (
        Piece(text=text, is_problem=True),
    )


def test_viewers_neither_exclude_nor_compare_what_is_hidden() -> None:
    given = settings.load(standalone=True, console_mask_viewers=True)
    for text in ("-data.vip:true", "data.total:>5", "-data.total:>5", "-word", "-type:sms.9665*"):
        found = masking.parse(given, VIEWER, text, now=NOW)
        assert found.selection == EventFilter(), text
        assert found.problems, text
    assert not masking.parse(
        given, VIEWER, "-type:order.* -state:dead is:conflict", now=NOW
    ).problems
    for name, query, is_shown in (
        ("Dead", "state:dead", True),
        ("Sara", "phone:966512345678", False),
        ("966512345678", "state:dead", False),
        ("Large", "data.total:>5", False),
    ):
        view = View(id=1, name=name, query=query, oldest_first=False, made_by="o", made_at=NOW)
        assert masking.shows_view(view) is is_shown, name
