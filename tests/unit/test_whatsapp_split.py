"""A body of many updates becomes bodies of one each, and nothing of any update is changed."""

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import strict_json
from ingest.errors import InvalidEnvelope
from ingest.sources.base import EventIdentity
from ingest.sources.whatsapp import splitting
from ingest.sources.whatsapp.updates import _updates
from tests.support.meta import METADATA, body_of, change, status, text, whatsapp

SOURCE = whatsapp()
LISTS = ("messages", "statuses", "errors")


class Speller:
    """Spells JSON in the ways that there are: spaces, escapes, digits, orders of fields."""

    def __init__(self, seed: int, *, breaks: bool = False) -> None:
        """With `breaks`, anything may be in the place of anything."""
        self._random = Random(seed)
        self._breaks = breaks

    def body(self) -> bytes:
        """Return a body with any number of updates."""
        entry = self.array(3, self.entry)
        kind = '"whatsapp_business_account"'
        return self.fields(object=kind, entry=entry).encode()

    def entry(self) -> str:
        return self.fields(id='"102"', time="1750000000.50", changes=self.array(3, self.change))

    def change(self) -> str:
        lists = {name: self.array(4, self.element) for name in LISTS if self._random.random() < 0.6}
        if self._random.random() < 0.8:
            lists["contacts"] = self.array(3, self.contact)
        value = self.fields(metadata=json.dumps(METADATA), **lists)
        return self.fields(field=self.one_of('"messages"', '"messages"', '"security"'), value=value)

    def element(self) -> str:
        return self.fields(
            id=self.one_of('"wamid.A"', '"wamid.B"', '"\\u0041"'),
            status=self.one_of('"read"', '"sent"'),
            **{"from": self.person()},
            from_user_id=self.person(),
        )

    def contact(self) -> str:
        return self.fields(wa_id=self.person(), user_id=self.person())

    def person(self) -> str:
        return self.one_of('"966501"', '"966502"', '"SA.1"', '"SA.2"', "7", "null")

    def fields(self, **known: str) -> str:
        """Return an object with these fields, and others."""
        fields = list(known.items())
        fields += [(self.one_of("x", "%s", "Ä", "{"), self.value()) for _ in range(self.count(2))]
        self._random.shuffle(fields)
        pairs = (f"{json.dumps(name)}{self.space()}:{self.space()}{v}" for name, v in fields)
        return self.broken(f"{{{self.space()}{f'{self.space()},{self.space()}'.join(pairs)}}}")

    def array(self, most: int, make: Callable[[], str]) -> str:
        items = (make() for _ in range(self.count(most)))
        return self.broken(f"[{self.space()}{f',{self.space()}'.join(items)}{self.space()}]")

    def broken(self, spelled: str) -> str:
        return self.value() if self._breaks and self._random.random() < 0.08 else spelled

    def value(self, depth: int = 2) -> str:
        kind = self.count(5 if depth else 3)
        if kind == 0:
            return self.one_of(
                "0", "-0", "1.50", "1E5", "-1e-400", "99999999999999999999.990", "7e9"
            )
        if kind == 1:
            return self.one_of('"é"', '"\\u00e9\\/"', '"\\ud83d"', '"🌹 [{"', '"\\"}]"', '""')
        if kind < 4:
            return self.one_of("true", "false", "null", "{}", "[ ]")
        inner = [self.value(depth - 1) for _ in range(self.count(3))]
        if kind == 4:
            return "[" + ", ".join(inner) + "]"
        return "{" + ",".join(f'"{n}": {value}' for n, value in enumerate(inner)) + "}"

    def count(self, most: int) -> int:
        return self._random.randint(0, most)

    def one_of(self, *texts: str) -> str:
        return self._random.choice(texts)

    def space(self) -> str:
        return self.one_of("", "", " ", "\n\t", "\r\n ")


seeds = st.integers(0, 2**64)
bodies = st.builds(lambda seed: Speller(seed).body(), seeds)
broken_bodies = st.builds(lambda seed: Speller(seed, breaks=True).body(), seeds)


def exact(body: str | bytes) -> Any:
    """Parse JSON; numbers are the texts that they are spelled with."""

    def number(spelled: str) -> tuple[str, str]:
        return "number", spelled

    return json.loads(body, parse_int=number, parse_float=number)


def updates(document: Any) -> list[Any]:
    """Return each update of an exact document, with all that is not another update or a contact."""
    found = []
    for entry in document["entry"]:
        around = [without(document, "entry"), without(entry, "changes")]
        for change_ in entry["changes"]:
            value = change_["value"]
            lists = [name for name in LISTS if change_["field"] == "messages" and value.get(name)]
            if not lists:
                found.append([*around, change_])
            inside = [without(change_, "value"), without(value, *LISTS, "contacts")]
            found += [
                [*around, *inside, name, element] for name in lists for element in value[name]
            ]
    return found


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def identify(body: bytes) -> EventIdentity | str:
    """Return the identity of a body's event, or the reason why it is none."""
    try:
        return SOURCE.identify(SOURCE.parse(body))
    except InvalidEnvelope as error:
        return error.reason


@given(bodies)
def test_no_update_is_lost_or_changed(body: bytes) -> None:
    expected = updates(exact(body))
    split = SOURCE.split(body)
    if len(expected) < 2:
        assert split is None
        return
    assert split is not None
    assert len(split) == len(expected)
    # A change without lists is kept whole; of the others, contacts are looked at below.
    for piece, update in zip(split, expected, strict=True):
        assert updates(exact(piece)) == [update]
        assert SOURCE.split(piece) is None


@given(bodies)
def test_an_update_is_named_as_in_the_whole(body: bytes) -> None:
    split = SOURCE.split(body)
    whole = list(_updates(strict_json.loads(body)))
    for piece, update in zip(split or [], whole, strict=split is not None):
        envelope = SOURCE.parse(piece)
        assert SOURCE.identify(envelope) == update.identify()
        assert envelope.type == update.type


@given(bodies)
def test_the_contact_that_comes_along_is_the_one_of_the_update(body: bytes) -> None:
    known = [
        contact
        for entry in exact(body)["entry"]
        for change_ in entry["changes"]
        for contact in change_["value"].get("contacts", [])
    ]
    for piece in SOURCE.split(body) or []:
        change_ = exact(piece)["entry"][0]["changes"][0]
        value = change_["value"]
        elements = [value[name][0] for name in LISTS if value.get(name)]
        if change_["field"] != "messages" or not elements:
            continue
        for contact in value.get("contacts", []):
            assert contact in known
            is_by_user_id = contact["user_id"] == elements[0]["from_user_id"]
            assert is_by_user_id or contact["wa_id"] == elements[0]["from"]


@given(broken_bodies)
def test_whatever_is_broken_spoils_no_sibling(body: bytes) -> None:
    """Every piece is a body of one update, which is named or refused by itself."""
    split = SOURCE.split(body)
    for piece in split or []:
        assert SOURCE.split(piece) is None
        assert identify(piece) not in ("several_updates", "no_update", "body_not_json")


@given(st.binary(max_size=60) | broken_bodies)
def test_whatever_comes_is_split_or_not_and_raises_nothing(body: bytes) -> None:
    split = SOURCE.split(body)
    assert split is None or len(split) > 1


def refused(body: bytes) -> list[str]:
    """Return, of each piece, the id of its event or the reason why it is none."""
    named = [identify(piece) for piece in SOURCE.split(body) or []]
    return [name if isinstance(name, str) else name.event_id for name in named]


def test_a_broken_element_is_refused_by_itself() -> None:
    broken: list[Any] = [None, 5, "x", [], {}, {"id": 7}, {"id": ""}]
    body = body_of(
        change(messages=[text(1), *broken, text(2)]),
        "no change",
        {"field": "messages"},
        change(statuses="none", errors=[1]),
        change(statuses=[{"id": "wamid.3"}, status(3, "sent")]),
    )
    assert refused(body) == [
        "messages:wamid.1",
        *["element_not_object"] * 4,
        *["id_missing"] * 3,
        "messages:wamid.2",
        "change_not_object",
        "value_not_object",
        "statuses_not_array",
        "element_not_object",
        "status_missing",
        "statuses:wamid.3:sent",
    ]


def test_an_entry_without_changes_is_refused_by_itself() -> None:
    document = json.loads(body_of(change(messages=[text(1)])))
    document["entry"] = [7, {"id": "1"}, *document["entry"], {"id": "1", "changes": []}]
    assert refused(json.dumps(document).encode()) == [
        "entry_not_object",
        "changes_not_array",
        "messages:wamid.1",
    ]


def test_contacts_follow_their_updates_by_user_id_and_else_by_number() -> None:
    listed = [
        {"profile": {"name": "by number"}, "wa_id": "966500000001"},
        {"profile": {"name": "by id"}, "user_id": "SA.2", "wa_id": "966500000001"},
        {"profile": {"name": "of a member"}, "wa_id": "966500000009"},
    ]
    body = body_of(
        change(
            contacts=listed,
            messages=[text(1), text(2, from_user_id="SA.2"), text(3)],
            statuses=[
                status(4, "read", recipient_user_id="SA.2"),
                status(5, "read", recipient_id="g", recipient_participant_id="966500000009"),
            ],
        )
    )
    values_ = [
        json.loads(piece)["entry"][0]["changes"][0]["value"] for piece in SOURCE.split(body) or []
    ]
    names = [
        [contact["profile"]["name"] for contact in value.get("contacts", [])] for value in values_
    ]
    assert names == [["by number"], ["by id"], [], ["by id"], ["of a member"]]
    assert all(value["metadata"] == METADATA for value in values_)


def test_a_mark_at_the_beginning_and_a_repeated_name_are_taken_as_json_takes_them() -> None:
    body = body_of(change(messages=[text(1), text(2)]))
    assert refused(b"\xef\xbb\xbf" + body) == ["messages:wamid.1", "messages:wamid.2"]
    twice = body.replace(b'"messages": [', b'"messages": [1, 2, 3], "messages": [', 1)
    assert refused(twice) == ["messages:wamid.1", "messages:wamid.2"]


def test_what_grows_beyond_the_limit_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    body = body_of(change(messages=[text(number) for number in range(11)]))
    assert len(SOURCE.split(body) or []) == 11
    monkeypatch.setattr(splitting, "MAX_BYTES", len(body))
    assert SOURCE.split(body) is None
    assert identify(body) == "several_updates"


@pytest.mark.parametrize(
    "make", [text, lambda number: status(number, "delivered")], ids=["messages", "statuses"]
)
def test_a_thousand_updates_are_split_in_no_time(make: Callable[[int], Any]) -> None:
    """They take 20 to 25 ms of a processor."""
    made = [make(number) for number in range(1_000)]
    body = body_of(change(messages=made) if make is text else change(statuses=made))
    began = time.process_time()
    split = SOURCE.split(body)
    assert time.process_time() - began < 5
    assert len(split or []) == 1_000
