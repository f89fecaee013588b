"""Twilio: signatures by its own library, types and ids."""

import hashlib
from datetime import UTC, datetime
from random import Random
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from ingest import settings, strict_json
from ingest.errors import InvalidEnvelope, InvalidSignature, SettingsError
from ingest.sources.base import CannotSign, WebhookRequest
from ingest.sources.twilio import samples
from ingest.sources.twilio.source import Twilio, TwilioSettings
from tests.support.receiving import Ask, ask_receiver
from tests.support.sender_vectors import SenderVector, of_sender

NOW = 1_750_030_100
SECRET = "the_auth_token_of_the_tests_01234"
URL = "https://hooks.example/webhooks/twilio"
FORM = {"MessageSid": "SM1", "MessageStatus": "sent", "To": "+9665", "Body": "é & ü +1"}
BODY = urlencode(FORM).encode()
SETTINGS_HEADER = b"x-twilio-webhooks-signature-settings"
VECTORS = of_sender("twilio")

vectors = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


def twilio(*secrets: str, url: str | None = URL) -> Twilio:
    """Return the source with these auth tokens, newest first."""
    return Twilio(
        TwilioSettings(
            secrets=tuple(SecretStr(secret) for secret in secrets or (SECRET,)),
            public_url=None if url is None else SecretStr(url),
        )
    )


SOURCE = twilio()


def posted(body: bytes, headers: Any, *, query: str = "") -> WebhookRequest:
    target = f"/webhooks/twilio{query and '?'}{query}"
    return WebhookRequest("POST", target, headers, body)


def signed(
    form: Any = FORM, *, url: str = URL, secret: str = SECRET, algorithm: str | None = None
) -> list[tuple[bytes, bytes]]:
    """Return the header that Twilio's own library makes."""
    signature = RequestValidator(secret).compute_signature(url, form, algorithm)
    return [(b"x-twilio-signature", signature.encode())]


def split_url(vector: SenderVector) -> tuple[str, str]:
    """Return the address that is set, and the query of the request."""
    assert vector.url is not None
    address, _, query = vector.url.partition("?")
    return address, query


@vectors
def test_every_vector_gets_its_verdict(vector: SenderVector) -> None:
    address, query = split_url(vector)
    source = twilio(vector.secret, url=address)
    assert vector.is_valid
    request = posted(vector.body, vector.headers, query=query)
    assert source.verify(request, now=NOW) == source.key_ids[0]
    for changed in (
        request._replace(body=vector.body + b"x"),
        request._replace(target=f"{request.target}x"),
    ):
        with pytest.raises(InvalidSignature):
            source.verify(changed, now=NOW)


@vectors
def test_every_vector_gets_its_verdict_over_http(vector: SenderVector) -> None:
    address, query = split_url(vector)
    good, bad = ask_receiver(
        twilio(vector.secret, url=address),
        Ask(body=vector.body, headers=vector.headers, query=query),
        Ask(body=vector.body + b"x", headers=vector.headers, query=query),
    )
    assert (good.status, good.body, good.stored) == (200, b"<Response/>", [vector.body])
    assert good.content_type == "text/xml"
    assert (bad.status, bad.stored) == (401, [])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(texts, texts, max_size=5))
def test_what_its_library_signed_is_accepted(form: dict[str, str]) -> None:
    body = urlencode(form).encode()
    assert SOURCE.verify(posted(body, signed(form)), now=NOW) == SOURCE.key_ids[0]


@given(st.dictionaries(texts, texts, max_size=5))
def test_its_library_accepts_what_we_sign(form: dict[str, str]) -> None:
    headers = SOURCE.sign(urlencode(form).encode(), now=NOW)
    validator = RequestValidator(SECRET)
    assert validator.validate(URL, form, headers["X-Twilio-Signature"])


@pytest.mark.parametrize(
    "signed_url", ["https://hooks.example{}/webhooks/twilio", "http://a:b@x{}/"]
)
@pytest.mark.parametrize("is_set_with_port", [False, True])
@pytest.mark.parametrize("is_signed_with_port", [False, True])
def test_it_may_sign_the_address_with_the_standard_port_or_without(
    signed_url: str, is_set_with_port: bool, is_signed_with_port: bool
) -> None:
    port = ":443" if signed_url.startswith("https") else ":80"
    source = twilio(url=signed_url.format(port if is_set_with_port else ""))
    headers = signed(url=signed_url.format(port if is_signed_with_port else ""))
    assert source.verify(posted(BODY, headers), now=NOW)


@pytest.mark.parametrize(
    "other",
    [
        "http://hooks.example/webhooks/twilio",
        "https://hooks.example:8443/webhooks/twilio",
        "https://hooks.example.evil/webhooks/twilio",
        "https://hooks.example/webhooks/twilio?x=1",
        "https://hooks.example/webhooks/other",
    ],
)
def test_another_address_is_refused(other: str) -> None:
    with pytest.raises(InvalidSignature):
        SOURCE.verify(posted(BODY, signed(url=other)), now=NOW)


def test_the_host_that_a_request_names_is_not_believed() -> None:
    headers = [*signed(url="https://evil.example/webhooks/twilio"), (b"host", b"evil.example")]
    headers += [(b"x-forwarded-host", b"evil.example"), (b"x-forwarded-proto", b"https")]
    (answer,) = ask_receiver(SOURCE, Ask(body=BODY, headers=headers))
    assert answer.status == 401


def test_a_json_body_is_verified_by_the_hash_in_the_address() -> None:
    body = b'{"type": "com.example", "n": 1.50}'
    query = f"a=1&bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = signed({}, url=f"{URL}?{query}")
    assert SOURCE.verify(posted(body, headers, query=query), now=NOW)
    for other in (body + b" ", body[:-1], b"", b'{"type":"com.example","n":1.50}'):
        with pytest.raises(InvalidSignature) as caught:
            SOURCE.verify(posted(other, headers, query=query), now=NOW)
        assert caught.value.reason == "body_hash_mismatch"
    with pytest.raises(InvalidSignature):
        SOURCE.verify(posted(body, headers, query="a=1"), now=NOW)


GOOD = signed()[0][1]
REFUSED = {
    "no header": [],
    "an empty header": [(b"x-twilio-signature", b"")],
    "a doubled header": signed() * 2,
    "not ASCII": [(b"x-twilio-signature", "é".encode() * 14)],
    "too short": [(b"x-twilio-signature", GOOD[:-3])],
    "hexadecimal": [(b"x-twilio-signature", b"0" * 40)],
    "another secret": signed(secret="another_secret_0123456789"),
    "another form": signed(FORM | {"Body": "é & ü +2"}),
    "an unknown algorithm": [*signed(), (SETTINGS_HEADER, b"key=k,algorithm=MD5")],
    "two algorithms": [*signed(), *[(SETTINGS_HEADER, b"algorithm=HMAC_SHA1")] * 2],
    "a signature of another algorithm": [*signed(), (SETTINGS_HEADER, b"algorithm=HMAC_SHA256")],
}


def test_what_is_not_signed_well_is_answered_401_and_not_stored() -> None:
    requests = [Ask(body=BODY, headers=headers) for headers in REFUSED.values()]
    requests.append(Ask(body=b"\xff=1", headers=signed()))
    requests.append(Ask(body=b"a=%ff", headers=signed()))
    requests.append(Ask(body=b"&".join([b"a=1"] * 1_001), headers=signed()))
    requests.append(Ask(body=BODY, headers=signed(), query="&".join(["a=1"] * 101)))
    answers = ask_receiver(SOURCE, *requests)
    assert [answer.status for answer in answers] == [401] * len(requests)
    assert not any(answer.stored for answer in answers)


def test_base64_without_its_padding_is_as_good() -> None:
    headers = [(b"x-twilio-signature", GOOD.rstrip(b"="))]
    assert SOURCE.verify(posted(BODY, headers), now=NOW)


def test_a_shared_key_signs_with_the_algorithm_that_the_request_names() -> None:
    headers = signed(algorithm="HMAC_SHA256")
    named = [*headers, (SETTINGS_HEADER, b"key=webhooks_sharedkey_1,algorithm=HMAC_SHA256")]
    assert SOURCE.verify(posted(BODY, named), now=NOW)
    with pytest.raises(InvalidSignature):
        SOURCE.verify(posted(BODY, headers), now=NOW)
    usual = [*signed(), (SETTINGS_HEADER, b"key=webhooks_sharedkey_1")]
    assert SOURCE.verify(posted(BODY, usual), now=NOW)


def test_any_live_secret_verifies_and_is_named() -> None:
    source = twilio("the_newest_secret_0123456789", SECRET)
    assert source.key_ids.index(source.verify(posted(BODY, signed()), now=NOW)) == 1


@given(st.binary(max_size=60), st.text("ab&=%;", max_size=20))
def test_untrusted_input_raises_nothing_but_invalid_signature(body: bytes, query: str) -> None:
    with pytest.raises(InvalidSignature):
        SOURCE.verify(posted(body, signed({"x": "y"}), query=query), now=NOW)


def test_a_form_that_takes_long_to_read_is_refused_before_its_signature_is_checked() -> None:
    """Whoever sends it is unknown by then, and every other request waits."""
    form = b"Body=" + "%é".encode() * 350_000
    with pytest.raises(InvalidSignature) as refused:
        SOURCE.verify(posted(form, signed({"x": "y"})), now=NOW)
    assert refused.value.reason == "form_too_long"


CALL_ENDED = {
    **{"CallSid": "CA1", "CallStatus": "completed", "Direction": "inbound", "From": "+9665"},
    **{"CallDuration": "41", "Duration": "1", "SequenceNumber": "0"},
    **{"CallbackSource": "call-progress-events", "Timestamp": "Fri, 17 Mar 2023 11:28:31 +0000"},
}
HUNG_UP = {
    **{"CallSid": "CA1", "CallStatus": "completed", "Direction": "inbound", "From": "+9665"},
    **{"Digits": "hangup", "RecordingSid": "RE1", "RecordingDuration": "12"},
    "RecordingUrl": "https://api.twilio.com/2010-04-01/Accounts/AC1/Recordings/RE1",
}
"""What the action of `<Record>` is called with."""


def identify(body: bytes) -> tuple[str, str]:
    identity = SOURCE.identify(SOURCE.parse(body))
    return identity.type, identity.event_id


@pytest.mark.parametrize(
    ("form", "named"),
    [
        (
            {"MessageSid": "SM1", "SmsSid": "SM1", "MessageStatus": "sent"},
            ("messaging", "SM1:sent"),
        ),
        ({"SmsSid": "SM1", "SmsStatus": "received"}, ("messaging", "SM1:received")),
        (
            {
                **{"EventType": "READ", "ChannelPrefix": "whatsapp", "SmsSid": "SM1"},
                **{"SmsStatus": "read", "MessageStatus": "read", "MessageSid": "SM1"},
            },
            ("messaging", "SM1:read"),
        ),
        (CALL_ENDED, ("voice", "CA1:completed")),
        (
            {"CallSid": "CA1", "RecordingSid": "RE1", "RecordingStatus": "completed"},
            ("recording", "RE1:completed"),
        ),
    ],
)
def test_an_event_is_named_by_its_sid_and_its_status(
    form: dict[str, str], named: tuple[str, str]
) -> None:
    kind, parts = named
    status = parts.partition(":")[2]
    assert identify(urlencode(form).encode()) == (f"{kind}.{status}", f"{kind}:{parts}")


@pytest.mark.parametrize(
    ("body", "event_type"),
    [
        (b"CallSid=CA1&Digits=1", "voice"),
        (b"EventType=onMessageAdded&MessageSid=IM1&Body=x", "onMessageAdded"),
        (b"a=1&a=2", "request"),
        (b'{"property": "value", "boolean": true}', "request"),
    ],
)
def test_anything_else_is_named_by_its_content(body: bytes, event_type: str) -> None:
    found, event_id = identify(body)
    assert found == event_type
    assert event_id.startswith(f"{event_type}:#")
    assert identify(body + b" ")[1] != event_id or body.startswith(b"{")


def test_the_steps_of_a_call_are_told_apart() -> None:
    step = {"CallSid": "CA1", "CallStatus": "in-progress"}
    one, same, other = (
        identify(urlencode(step | {"Digits": digits}).encode()) for digits in ("1", "1", "2")
    )
    assert one == same
    assert one[1] != other[1]
    assert one[0] == other[0] == "voice.in-progress"


def test_the_recording_of_a_caller_who_hangs_up_is_no_repeat_of_the_calls_end() -> None:
    ended, recorded, again, other = (
        identify(urlencode(form).encode())
        for form in (CALL_ENDED, HUNG_UP, HUNG_UP, HUNG_UP | {"RecordingSid": "RE2"})
    )
    assert ended == ("voice.completed", "voice:CA1:completed")
    assert recorded == again
    assert recorded[0] == "voice.completed"
    assert recorded[1].startswith("voice:CA1:completed:")
    assert len({ended, recorded, other}) == 3


def test_an_answered_call_is_told_from_its_steps_by_its_content() -> None:
    answered = CALL_ENDED | {"CallStatus": "in-progress"}
    event_type, event_id = identify(urlencode(answered).encode())
    assert event_type == "voice.in-progress"
    digest = hashlib.sha256(strict_json.canonical(answered)).hexdigest()
    assert event_id == f"voice:CA1:in-progress:{digest}"


def test_a_form_is_an_object_of_texts_and_of_lists_of_them() -> None:
    envelope = SOURCE.parse(b"a=1&b=&a=%C3%A9+x&Timestamp=Tue%2C+20+Jan+2026+10%3A30%3A00+%2B0100")
    assert envelope.data["a"] == ["1", "é x"]
    assert envelope.data["b"] == ""
    assert envelope.occurred_at == datetime(2026, 1, 20, 9, 30, tzinfo=UTC)
    assert SOURCE.parse(b"Timestamp=2026-01-20T10:30:00Z").occurred_at is not None
    for unreadable in (b"yesterday", b"Fri%2C+31+Dec+9999+23%3A59%3A00+-2359", b"0"):
        assert SOURCE.parse(b"Timestamp=" + unreadable).occurred_at is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body_empty"),
        (b"\xff", "body_not_form"),
        (b"a=%ff", "body_not_form"),
        (b"{", "body_not_json"),
        (b"[1]", "body_not_object"),
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        SOURCE.parse(body)
    assert caught.value.reason == reason


@pytest.mark.parametrize("event_type", [*samples.TYPES, "onMessageAdded"])
def test_a_sample_is_an_event_of_its_type(event_type: str) -> None:
    body = samples.make(event_type, Random(1), datetime(2026, 1, 20, tzinfo=UTC))
    assert identify(body)[0] == event_type


def test_without_an_address_nothing_is_signed_or_verified() -> None:
    source = Twilio(TwilioSettings(secrets=(), public_url=None)).with_secret(SECRET)
    with pytest.raises(CannotSign) as caught:
        source.sign(BODY, now=NOW)
    assert "INGEST_TWILIO_PUBLIC_URL" in str(caught.value)
    with pytest.raises(InvalidSignature):
        source.verify(posted(BODY, signed()), now=NOW)


def test_another_secret_keeps_the_address() -> None:
    other = SOURCE.with_secret("another_secret_0123456789")
    headers = [(b"x-twilio-signature", other.sign(BODY, now=NOW)["X-Twilio-Signature"].encode())]
    assert other.verify(posted(BODY, headers), now=NOW)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (None, "INGEST_TWILIO_PUBLIC_URL: must be set"),
        ("hooks.example/webhooks", "INGEST_TWILIO_PUBLIC_URL: must be an address"),
        ("https://hooks.example/x?y=1", "INGEST_TWILIO_PUBLIC_URL: must be an address"),
    ],
)
def test_a_secret_without_a_usable_address_stops_the_start(
    url: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_TWILIO_SECRETS", SECRET)
    if url is not None:
        monkeypatch.setenv("INGEST_TWILIO_PUBLIC_URL", url)
    with pytest.raises(SettingsError) as caught:
        settings.load(standalone=True)
    assert str(caught.value).startswith(sentence)
