"""Zoom: signatures, the validation of the address, types and ids."""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.sources.base import SourceSettings, WebhookRequest
from ingest.sources.zoom.source import Zoom
from tests.support.receiving import Ask, ask_receiver

NOW = 1_750_030_100
SECRET = "the_secret_token_of_the_tests_012"
BODY = (
    b'{"event":"meeting.started","event_ts":1626230691572,'
    b'"payload":{"object":{"id":"1","x":"\xc3\xa9"}}}'
)


def zoom(*secrets: str) -> Zoom:
    """Return the source with these secret tokens, newest first."""
    return Zoom(SourceSettings(secrets=tuple(map(SecretStr, secrets or (SECRET,)))))


SOURCE = zoom()


def posted(body: bytes, headers: Any) -> WebhookRequest:
    return WebhookRequest("POST", "/webhooks/zoom", headers, body)


def signed(
    body: bytes = BODY, *, at: object = NOW, secret: str = SECRET
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request, made from Zoom's documentation alone."""
    digest = hmac.new(secret.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    return [
        (b"x-zm-request-timestamp", str(at).encode()),
        (b"x-zm-signature", f"v0={digest}".encode()),
    ]


def validation(token: object = "qgg8vlvZRS6UYooatFL8Aw") -> bytes:
    return json.dumps(
        {"payload": {"plainToken": token}, "event_ts": 1, "event": "endpoint.url_validation"}
    ).encode()


STAMP, SIGNATURE = signed()
REFUSED = {
    "no headers": [],
    "no signature": [STAMP],
    "no timestamp": [SIGNATURE],
    "an empty signature": [STAMP, (b"x-zm-signature", b"")],
    "an empty timestamp": [(b"x-zm-request-timestamp", b""), SIGNATURE],
    "a doubled signature": [STAMP, SIGNATURE, SIGNATURE],
    "a doubled timestamp": [STAMP, STAMP, SIGNATURE],
    "not ASCII": [STAMP, (b"x-zm-signature", "v0=é".encode())],
    "without its version": [STAMP, (b"x-zm-signature", SIGNATURE[1][3:])],
    "another version": [STAMP, (b"x-zm-signature", b"v1" + SIGNATURE[1][2:])],
    "another secret": signed(secret="another_secret_0123456789"),
    "another body": signed(BODY + b" "),
    "a body written anew": signed(json.dumps(json.loads(BODY)).encode()),
    "too old": signed(at=NOW - 301),
    "of the future": signed(at=NOW + 301),
    "in milliseconds": signed(at=NOW * 1_000),
    "a negative time": signed(at=-NOW),
    "no number": signed(at="now"),
    "digits of another script": signed(at="١٧٥٠٠٣٠١٠٠"),
}


def test_what_is_not_signed_well_is_answered_401_and_not_stored() -> None:
    requests = [Ask(body=BODY, headers=headers) for headers in REFUSED.values()]
    answers = ask_receiver(SOURCE, *requests, now=NOW)
    assert [answer.status for answer in answers] == [401] * len(requests)
    assert not any(answer.stored for answer in answers)


def test_what_is_signed_well_is_stored() -> None:
    upper = (b"x-zm-signature", b"v0=" + SIGNATURE[1][3:].upper())
    headers = [signed(), [STAMP, upper], signed(at=NOW - 300), signed(at=NOW + 300)]
    answers = ask_receiver(SOURCE, *(Ask(body=BODY, headers=some) for some in headers), now=NOW)
    assert [(answer.status, answer.stored) for answer in answers] == [(200, [BODY])] * 4


def test_any_live_secret_verifies_and_is_named() -> None:
    source = zoom("the_newest_secret_0123456789", SECRET)
    assert source.key_ids.index(source.verify(posted(BODY, signed()), now=NOW)) == 1


def test_we_sign_as_it_does() -> None:
    made = SOURCE.sign(BODY, now=NOW)
    assert made["x-zm-signature"].encode() == SIGNATURE[1]
    assert made["x-zm-request-timestamp"].encode() == STAMP[1]


names = st.sampled_from([b"x-zm-request-timestamp", b"x-zm-signature"])


@given(st.lists(st.tuples(names, st.binary(max_size=80)), max_size=4))
def test_untrusted_headers_raise_nothing_but_invalid_signature(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(InvalidSignature):
        SOURCE.verify(posted(BODY, headers), now=NOW)


def test_a_signed_validation_is_answered_with_the_digest_of_its_token() -> None:
    body = validation()
    answers = ask_receiver(
        zoom("the_newest_secret_0123456789", SECRET),
        Ask(body=body, headers=signed(body)),
        now=NOW,
    )
    digest = hmac.new(SECRET.encode(), b"qgg8vlvZRS6UYooatFL8Aw", hashlib.sha256).hexdigest()
    assert [(answer.status, answer.stored) for answer in answers] == [(200, [])]
    assert json.loads(answers[0].body) == {
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
        "encryptedToken": digest,
    }


def test_a_validation_that_zoom_did_not_sign_is_refused() -> None:
    """Its answer would be a signature of whatever a stranger likes."""
    body = validation()
    forged = validation(f"v0:{NOW}:{{}}")
    answers = ask_receiver(
        SOURCE,
        Ask(body=body),
        Ask(body=body, headers=signed(body, secret="another_secret_0123456789")),
        Ask(body=body, headers=signed(body, at=NOW - 301)),
        Ask(method="GET"),
        Ask(body=forged, headers=signed(forged)),
        now=NOW,
    )
    assert [answer.status for answer in answers] == [401, 401, 401, 401, 400]
    assert not any(b"encryptedToken" in answer.body for answer in answers)


@pytest.mark.parametrize("token", ["", "a:b", "x" * 257, 5, None, "é"])
def test_a_token_of_another_form_is_not_answered(token: object) -> None:
    body = validation(token)
    assert SOURCE.answer_challenge(posted(body, signed(body)), now=NOW) is None


def test_an_event_is_named_by_its_content() -> None:
    envelope = SOURCE.parse(BODY)
    identity = SOURCE.identify(envelope)
    assert identity.type == "meeting.started"
    assert identity.event_id.startswith("meeting.started:#")
    assert envelope.data == {"object": {"id": "1", "x": "é"}}
    assert envelope.occurred_at == datetime.fromtimestamp(1_626_230_691.572, UTC)
    assert SOURCE.identify(SOURCE.parse(BODY.replace(b"572", b"573"))) != identity
    assert SOURCE.identify(SOURCE.parse(BODY.replace(b":", b": "))) == identity


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "body_not_json"),
        (b"[]", "body_not_object"),
        (b"{}", "event_not_string"),
        (b'{"event":"x"}', "payload_not_object"),
        (validation(), "validation_malformed"),
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        SOURCE.parse(body)
    assert caught.value.reason == reason


@pytest.mark.parametrize("event_type", Zoom.samples.types)
def test_a_sample_is_an_event_of_its_type(event_type: str) -> None:
    body = Zoom.samples.make(event_type, Random(1), datetime(2026, 1, 20, tzinfo=UTC))
    assert SOURCE.parse(body).type == event_type
