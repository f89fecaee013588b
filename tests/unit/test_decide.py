"""What becomes of a request, decided from its headers, its body and the time alone."""

import json
from uuid import UUID

import pytest
from pydantic import SecretStr

from ingest.errors import InvalidEnvelope
from ingest.receiver.decide import (
    ChallengeAnswer,
    CostlyBody,
    Decision,
    Refusal,
    Rejected,
    Request,
    decide,
    decide_challenge,
    decide_named,
)
from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import Answer, Headers, SourceSettings
from ingest.sources.identities import name_body
from ingest.store.pipeline.deliveries import Delivery
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat

NOW = 1_768_900_000
SOURCE = awalchat(SECRET)
EVENT = b'{"event":"order.created","timestamp":"2026-01-20T10:30:00Z","data":{"order_id":5}}'
CHALLENGE = b'{"type":"verification","challenge":"x"}'
COSTLY = b'{"event":"x","data":{"x":[%b1]}}' % (b"[]," * 50_000)


class Several(AwalChat):
    """AwalChat, if it sent several events in one request: a line for each."""

    def split(self, body: bytes) -> list[bytes] | None:
        return body.splitlines() if b"\n" in body else None


def signed(body: bytes, *, at: int = NOW, **more: str) -> list[tuple[bytes, bytes]]:
    headers = signed_headers(body, timestamp=at) | more
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def request(headers: Headers) -> Request:
    return Request(
        UUID(int=1), NOW + 0.1234, "awalchat", ("10.0.0.1", 1), headers, "/webhooks/awalchat"
    )


def decided(body: bytes, headers: Headers) -> Decision:
    return decide(request(headers), SOURCE, body)


def test_a_signed_event_is_a_delivery() -> None:
    delivery = decided(EVENT, signed(EVENT, Cookie="private"))
    assert isinstance(delivery, Delivery)
    assert (delivery.id, delivery.source, delivery.body) == (UUID(int=1), "awalchat", EVENT)
    assert delivery.received_at.timestamp() == pytest.approx(NOW + 0.123, abs=1e-6)
    assert delivery.key_id == SOURCE.key_ids[0]
    assert (delivery.name, delivery.rejected) == (name_body(SOURCE, EVENT), None)
    kept = [name for name, _ in json.loads(delivery.headers)]
    assert kept == ["content-type", "x-awal-webhook-timestamp", "x-awal-webhook-signature"]


def test_a_signed_body_that_is_no_event_is_stored_and_rejected() -> None:
    decision = decided(b"[]", signed(b"[]"))
    assert isinstance(decision, Rejected)
    assert decision.error.reason == decision.delivery.rejected == "body_not_object"
    assert decision.delivery.name is None


@pytest.mark.parametrize("headers", [[], signed(CHALLENGE)], ids=["not signed", "signed"])
def test_a_handshake_is_answered(headers: Headers) -> None:
    assert decided(CHALLENGE, headers) == ChallengeAnswer(Answer(b'{"challenge": "x"}'))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "signature_missing"),
        (signed(EVENT)[:2], "signature_missing"),
        (signed(EVENT + b" "), "signature_mismatch"),
        (signed(EVENT, at=NOW - 301), "timestamp_outside_window"),
        (signed(EVENT, at=NOW + 301), "timestamp_outside_window"),
    ],
    ids=["not signed", "half signed", "another body", "old", "of the future"],
)
def test_what_is_not_provably_from_the_sender_is_refused(headers: Headers, reason: str) -> None:
    decision = decided(EVENT, headers)
    assert isinstance(decision, Refusal)
    assert decision.error.reason == reason


class SignsChallenges(AwalChat):
    """As Slack does."""

    signs_challenges = True


def test_where_challenges_are_signed_one_without_a_signature_is_refused() -> None:
    source = SignsChallenges(SourceSettings(secrets=(SecretStr(SECRET),)))
    refused = decide(request([]), source, CHALLENGE)
    assert isinstance(refused, Refusal)
    assert refused.error.reason == "timestamp_missing"
    assert isinstance(decide_challenge(request([]), source, CHALLENGE), Refusal)
    answered = decide(request(signed(CHALLENGE)), source, CHALLENGE)
    assert answered == ChallengeAnswer(Answer(b'{"challenge": "x"}'))
    assert decide_challenge(request(signed(CHALLENGE)), source, CHALLENGE) == answered
    assert decide_challenge(request(signed(EVENT)), source, EVENT) is None


def test_a_costly_body_is_named_elsewhere_once_its_signature_is_right() -> None:
    costly = request(signed(COSTLY))
    decision = decide(costly, SOURCE, COSTLY)
    assert decision == CostlyBody(SOURCE.key_ids[0])
    assert isinstance(decided(COSTLY, []), Refusal)
    assert isinstance(decided(COSTLY, signed(EVENT)), Refusal)
    name = name_body(SOURCE, COSTLY)
    delivery = decide_named(costly, SOURCE, COSTLY, [], decision.key_id, name)
    assert isinstance(delivery, Delivery)
    assert delivery.name == name
    error = InvalidEnvelope("Signed, but no.", reason="body_not_json")
    rejected = decide_named(costly, SOURCE, COSTLY, [], decision.key_id, error)
    assert isinstance(rejected, Rejected)
    assert rejected.delivery.rejected == "body_not_json"


def test_a_body_of_several_events_is_kept_whole_with_each_of_them() -> None:
    source = Several(SourceSettings(secrets=(SecretStr(SECRET),)))
    body = b"\n".join([EVENT, b"nothing", EVENT.replace(b"5}", b"6}")])
    delivery = decide(request(signed(body)), source, body)
    assert isinstance(delivery, Delivery)
    assert (delivery.id, delivery.body, delivery.rejected) == (UUID(int=1), body, None)
    first, broken, last = delivery.elements
    assert [element.id for element in delivery.elements] == [UUID(int=n) for n in (2, 3, 4)]
    assert (first.body, last.body) == (EVENT, EVENT.replace(b"5}", b"6}"))
    assert (first.name, first.rejected) == (name_body(SOURCE, EVENT), None)
    assert (broken.name, broken.rejected) == (None, "body_not_json")
    assert {element.headers for element in delivery.elements} == {delivery.headers}
    assert list(delivery.events()) == [first, last]
    assert delivery.rows == 4
    assert delivery.size > sum(element.size for element in delivery.elements)


def test_a_body_of_more_events_than_a_delivery_may_hold_is_rejected_whole() -> None:
    source = Several(SourceSettings(secrets=(SecretStr(SECRET),)))
    body = b"\n".join([b"{}"] * 10_001)
    named = name_body(source, body)
    rejected = decide_named(request(signed(body)), source, body, [], "key", named)
    assert isinstance(rejected, Rejected)
    assert rejected.delivery.rejected == "too_many_events"
    assert isinstance(name_body(source, body[: -len(b"\n{}")]), list)
