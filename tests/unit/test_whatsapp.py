"""Meta's WhatsApp Cloud API: signatures, the check of the address, types and ids."""

import json
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import settings
from ingest.errors import InvalidEnvelope, InvalidSignature, SettingsError
from ingest.sources.base import Answer, WebhookRequest
from ingest.sources.whatsapp import samples
from tests.support.meta import (
    APP_SECRET,
    TOKEN,
    body_of,
    change,
    signature,
    signed,
    status,
    text,
    whatsapp,
)
from tests.support.receiving import Ask, ask_receiver
from tests.support.sender_vectors import SenderVector, of_sender

NOW = 1_750_030_100
SOURCE = whatsapp()
BODY = body_of(change(messages=[text(1, text={"body": "äöå"})]))
VECTORS = of_sender("meta")

vectors = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


def asked(
    body: bytes = b"", headers: Any = (), *, query: str = "", method: str = "POST"
) -> WebhookRequest:
    target = f"/webhooks/whatsapp{query and '?'}{query}"
    return WebhookRequest(method, target, headers, body)


def challenge(**parameters: str) -> str:
    """Return the query of a check."""
    usual = {"mode": "subscribe", "challenge": "1158201444", "verify_token": TOKEN}
    return urlencode({f"hub.{name}": value for name, value in (usual | parameters).items()})


@vectors
def test_every_vector_gets_its_verdict(vector: SenderVector) -> None:
    source = whatsapp(vector.secret)
    request = asked(vector.body, vector.headers)
    if vector.is_valid:
        assert source.verify(request, now=NOW) == source.key_ids[0]
    else:
        with pytest.raises(InvalidSignature):
            source.verify(request, now=NOW)


@vectors
def test_every_vector_gets_its_verdict_over_http(vector: SenderVector) -> None:
    request = Ask(body=vector.body, headers=vector.headers)
    (answer,) = ask_receiver(whatsapp(vector.secret), request)
    assert answer.status == (200 if vector.is_valid else 401)
    assert answer.stored == ([vector.body] if vector.is_valid else [])


REFUSED = {
    "no header": [],
    "an empty header": [(b"x-hub-signature-256", b"")],
    "a doubled header": signed(BODY) * 2,
    "not ASCII": [(b"x-hub-signature-256", "sha256=é".encode())],
    "without its prefix": [(b"x-hub-signature-256", signature(BODY)[7:])],
    "of another scheme": [(b"x-hub-signature", b"sha1=" + b"0" * 40)],
    "too short": [(b"x-hub-signature-256", signature(BODY)[:-2])],
    "another secret": signed(BODY, "another_secret_0123456789"),
    "another body": signed(BODY + b" "),
    "a body written anew": signed(json.dumps(json.loads(BODY), ensure_ascii=False).encode()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_signed_well_is_refused(name: str) -> None:
    with pytest.raises(InvalidSignature):
        SOURCE.verify(asked(BODY, REFUSED[name]), now=NOW)


def test_what_is_not_signed_well_is_answered_401_and_not_stored() -> None:
    requests = [Ask(body=BODY, headers=headers) for headers in REFUSED.values()]
    answers = ask_receiver(SOURCE, *requests)
    assert {answer.status for answer in answers} == {401}
    assert not any(answer.stored for answer in answers)


def test_upper_case_digits_are_as_good() -> None:
    upper = b"sha256=" + signature(BODY)[7:].upper()
    assert SOURCE.verify(asked(BODY, [(b"x-hub-signature-256", upper)]), now=NOW)


def test_any_live_secret_verifies_and_is_named() -> None:
    source = whatsapp("the_newest_secret_0123456789", APP_SECRET)
    matched = source.verify(asked(BODY, signed(BODY)), now=NOW)
    assert source.key_ids.index(matched) == 1
    assert APP_SECRET not in matched


@given(st.lists(st.tuples(st.just(b"x-hub-signature-256"), st.binary(max_size=90)), max_size=3))
def test_untrusted_headers_raise_nothing_but_invalid_signature(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(InvalidSignature):
        SOURCE.verify(asked(BODY, headers), now=NOW)


def test_what_it_signs_itself_another_implementation_signs_alike() -> None:
    assert SOURCE.sign(BODY, now=NOW)["X-Hub-Signature-256"].encode() == signature(BODY)


@pytest.mark.parametrize("text_", ["1158201444", "a b+c", "<b>é</b>", "x" * 1024])
def test_a_check_with_our_token_is_answered_with_its_challenge_as_plain_text(text_: str) -> None:
    answer = SOURCE.answer_challenge(asked(query=challenge(challenge=text_), method="GET"), now=NOW)
    assert answer == Answer(text_.encode(), b"text/plain; charset=utf-8")


REFUSED_CHECKS = {
    "another token": challenge(verify_token="another_token_0123456789"),
    "no token": challenge(verify_token=""),
    "a token in other characters": challenge(verify_token=f"{TOKEN}é"),
    "two tokens": f"{challenge()}&hub.verify_token={TOKEN}",
    "another mode": challenge(mode="unsubscribe"),
    "an empty challenge": challenge(challenge=""),
    "a long challenge": challenge(challenge="x" * 1025),
    "two challenges": f"{challenge()}&hub.challenge=1",
}


@pytest.mark.parametrize("name", REFUSED_CHECKS)
def test_any_other_check_is_refused(name: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        SOURCE.answer_challenge(asked(query=REFUSED_CHECKS[name], method="GET"), now=NOW)
    assert TOKEN not in str(caught.value)


def test_without_a_token_of_ours_every_check_is_refused() -> None:
    with pytest.raises(InvalidSignature) as caught:
        whatsapp(token=None).answer_challenge(
            asked(query=challenge(verify_token=""), method="GET"), now=NOW
        )
    assert "INGEST_WHATSAPP_VERIFY_TOKEN" in str(caught.value)


def test_a_check_is_answered_over_http() -> None:
    refused = [*REFUSED_CHECKS.values()]
    good, other, *answers = ask_receiver(
        SOURCE,
        *(Ask(method="GET", query=query) for query in (challenge(), "x=1", *refused)),
        Ask(query=challenge()),
    )
    assert (good.status, good.body) == (200, b"1158201444")
    assert good.content_type.startswith("text/plain")
    assert other.status == 405
    assert {answer.status for answer in answers} == {401}


NAMES = {
    "a message": (change(messages=[text(7)]), "messages.text", "messages:wamid.7"),
    "a message without a type": (
        change(messages=[{"id": "wamid.7"}]),
        "messages.unknown",
        "messages:wamid.7",
    ),
    "a status": (
        change(statuses=[status(7, "read")]),
        "statuses.read",
        "statuses:wamid.7:read",
    ),
    "a status of a member of a group": (
        change(statuses=[status(7, "read", recipient_participant_id="9665")]),
        "statuses.read",
        "statuses:wamid.7:read:9665",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_updates_with_an_id_are_named_by_it(name: str) -> None:
    part, event_type, event_id = NAMES[name]
    identity = SOURCE.identify(SOURCE.parse(body_of(part)))
    assert (identity.type, identity.event_id) == (event_type, event_id)
    elsewhen = SOURCE.identify(SOURCE.parse(body_of(part, time=1_750_000_999)))
    assert elsewhen == identity  # a retry may be stamped and batched anew


@pytest.mark.parametrize(
    ("part", "event_type"),
    [
        (change(errors=[{"code": 131000, "title": "x"}]), "errors"),
        (change("account_update", event="DISABLED_UPDATE"), "account_update"),
        (change(messages=[], contacts=[]), "messages"),
        (change("user_id_update", user_id_update=[{}, {}]), "user_id_update"),
    ],
)
def test_other_updates_are_named_by_their_content_and_their_time(
    part: dict[str, Any], event_type: str
) -> None:
    identity = SOURCE.identify(SOURCE.parse(body_of(part)))
    assert identity.type == event_type
    assert identity.event_id.startswith(f"{event_type}:#")
    assert identity == SOURCE.identify(SOURCE.parse(body_of(part)))
    other = SOURCE.identify(SOURCE.parse(body_of(part, time=1_750_000_001)))
    assert other.event_id != identity.event_id


def test_the_same_id_with_another_content_has_another_fingerprint() -> None:
    one, other = (
        SOURCE.identify(SOURCE.parse(body_of(change(messages=[text(1, text={"body": body})]))))
        for body in ("a", "b")
    )
    assert one.event_id == other.event_id
    assert one.fingerprint != other.fingerprint


def test_the_time_is_the_updates_own_or_else_the_entrys() -> None:
    own = SOURCE.parse(body_of(change(messages=[text(0)])))
    assert own.occurred_at == datetime.fromtimestamp(1_749_416_383, UTC)
    of_entry = SOURCE.parse(body_of(change("account_update", event="x")))
    assert of_entry.occurred_at == datetime.fromtimestamp(1_750_000_000, UTC)
    assert SOURCE.parse(body_of(change("security", event="x"), time=None)).occurred_at is None


BROKEN = {
    "no JSON": (b"{", "body_not_json"),
    "no object": (b"[]", "body_not_object"),
    "of another product": (b'{"object":"page","entry":[]}', "object_unknown"),
    "no entry": (b'{"object":"whatsapp_business_account"}', "entry_not_array"),
    "an empty entry": (b'{"object":"whatsapp_business_account","entry":[]}', "no_update"),
    "an entry that is none": (
        b'{"object":"whatsapp_business_account","entry":[1]}',
        "entry_not_object",
    ),
    "a change that is none": (body_of(5), "change_not_object"),
    "a change without a field": (body_of({"value": {}}), "field_not_string"),
    "a change without a value": (body_of({"field": "messages"}), "value_not_object"),
    "messages that are no list": (body_of(change(messages={})), "messages_not_array"),
    "a message that is none": (body_of(change(messages=["x"])), "element_not_object"),
    "a message without an id": (body_of(change(messages=[{"type": "text"}])), "id_missing"),
    "a status without a status": (body_of(change(statuses=[{"id": "a"}])), "status_missing"),
    "two messages": (body_of(change(messages=[text(1), text(2)])), "several_updates"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_update_is_refused_with_a_reason(name: str) -> None:
    body, reason = BROKEN[name]
    with pytest.raises(InvalidEnvelope) as caught:
        SOURCE.parse(body)
    assert caught.value.reason == reason


@pytest.mark.parametrize("event_type", [*samples.types(), "messages.poll", "new_field"])
def test_a_sample_is_an_event_of_its_type(event_type: str) -> None:
    for seed in range(20):
        body = samples.make(event_type, Random(seed), datetime(2026, 1, 20, tzinfo=UTC))
        assert SOURCE.identify(SOURCE.parse(body)).type == event_type
        assert SOURCE.split(body) is None


def test_the_documented_examples_are_events() -> None:
    types = [SOURCE.parse(body).type for body in samples.DOCUMENTED]
    assert types == ["messages.text", "statuses.sent"]


def test_a_simulated_business_sends_events_and_batches_of_them() -> None:
    opened_at = datetime(2026, 1, 20, tzinfo=UTC)
    requests = [*islice(SOURCE.simulate(Random(5), opened_at=opened_at), 400)]
    again = islice(SOURCE.simulate(Random(5), opened_at=opened_at), 400)
    assert [same.body() for same in again] == [request.body(opened_at) for request in requests]
    events = []
    for request in requests:
        bodies = SOURCE.split(request.body()) or [request.body()]
        names = [SOURCE.identify(SOURCE.parse(body)) for body in bodies]
        assert request.type in {name.type for name in names}
        events += names
    assert len({name.event_id for name in events}) == len(events) > 600
    assert {"statuses.read", "statuses.played", "messages.text"} <= {name.type for name in events}
    steps = [name.event_id for name in events if name.type in ("statuses.sent", "statuses.read")]
    place = {event_id: number for number, event_id in enumerate(steps)}
    pairs = [(step, f"{step[: -len('sent')]}read") for step in steps if step.endswith("sent")]
    orders = {place[sent] < place[read] for sent, read in pairs if read in place}
    assert orders == {True, False}


@pytest.mark.parametrize(
    "bad", ["", "too_few", '"in_quotes_0123456789"', "two_tokens_012345,other_012345678"]
)
def test_a_token_that_cannot_be_one_stops_the_start(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_WHATSAPP_VERIFY_TOKEN", bad)
    with pytest.raises(SettingsError) as caught:
        settings.load(standalone=True)
    assert "INGEST_WHATSAPP_VERIFY_TOKEN" in str(caught.value)
    assert bad == "" or bad not in str(caught.value)


def test_secrets_and_token_may_stand_in_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name, value in (("SECRETS", APP_SECRET), ("VERIFY_TOKEN", TOKEN)):
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"INGEST_WHATSAPP_{name}_FILE", str(tmp_path / name))
    loaded = settings.load(standalone=True).sources["whatsapp"]
    assert loaded == whatsapp()._settings
    assert "INGEST_WHATSAPP_VERIFY_TOKEN_FILE" in settings.secret_variables()
