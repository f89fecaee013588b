"""What viewers do not see, what of an arriving event is looked at, what buttons speak of."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ingest import settings
from ingest.console import masking, pages, shown, views
from ingest.console.access.identity import Identity, Role
from ingest.console.stream import is_checked, matches
from ingest.store.listing import ListedEvent
from ingest.store.replay import Counts
from ingest.store.selection import Selection

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
VIEWER = Identity(name="v", role=Role.VIEWER, via="session")
OPERATOR = Identity(name="o", role=Role.OPERATOR, via="session")
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


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("966512345678", "••••••••••78"),
        ("call +966512345678 now", "call •••••••••••78 now"),
        ("order.created:790", "order.created:790"),
        ("message.received:wamid.HBgMOTY2NTAwMDAwMDAwFQ", "message.received:wamid.••••AwFQ"),
        ("true_966500000000%40c.us", "true_••••••••••00%40c.us"),
    ],
)
def test_what_could_be_a_phone_number_is_masked(text: str, masked: str) -> None:
    assert views.mask_phones(text) == masked


def test_a_masked_list_names_the_error_and_not_what_it_says() -> None:
    (shown,) = views.of_listed([EVENT], masked=True)
    assert shown.error == "ValueError"
    assert views.of_listed([EVENT], masked=False) == (EVENT,)


@pytest.mark.parametrize("text", ["data.from:9665", '"free text"', "phone:966512345678"])
def test_viewers_do_not_find_what_they_do_not_see(text: str) -> None:
    given = settings.load(standalone=True, console_mask_viewers=True)
    found = masking.parse(given, VIEWER, f"state:dead {text}", now=NOW)
    assert found.selection == Selection(state="dead")
    assert "Viewers" in found.problems[-1].message
    assert not masking.parse(given, OPERATOR, text, now=NOW).problems


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), True),
        (Selection(types=("order.*",)), True),
        (Selection(types=("order.?reated",)), False),
        (Selection(types=("message.*", "order.created")), True),
        (Selection(state="succeeded"), False),
        (Selection(source="other"), False),
        (Selection(search="CREATED:79"), True),
        (Selection(search=("790", "791")), False),
    ],
)
def test_what_arrives_is_filtered(selection: Selection, expected: bool) -> None:
    assert matches(selection, EVENT) is expected
    assert is_checked(selection)


def test_what_a_line_does_not_tell_is_not_filtered_by() -> None:
    for field in ({"processor": "x"}, {"since": NOW}, {"fields": (("data.a", "1"),)}):
        assert not is_checked(replace(Selection(), **field))


def test_the_buttons_and_the_preview_speak_of_what_is_touched() -> None:
    of_orders, by_crm = Selection(types=("order.*",)), Selection(processor="crm")
    assert shown.bulk(Selection(state="retrying")) == {"replay": "all", "discard": "all"}
    assert shown.bulk(of_orders) == {"replay": "all dead and unhandled", "discard": "all dead"}
    assert shown.bulk(by_crm) == {"replay": "all dead", "discard": "all dead"}
    for selection, counts, state in (
        (of_orders, Counts(jobs=2, events=3), "dead"),
        (of_orders, Counts(events=3), "unhandled"),
        (by_crm, Counts(), "dead"),
        (Selection(state="retrying"), Counts(jobs=2), "retrying"),
        (Selection(error_type="E"), Counts(jobs=2), None),
    ):
        assert pages._sampled(selection, counts).state == state
