import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.sources.awalchat import source as protocol
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat, posted
from tests.support.vectors import NOW, SECRETS, VECTORS, Vector

source = awalchat(*SECRETS)


def status(vector: Vector) -> int:
    """What the source makes of a request, as the receiver asks it."""
    if not source.is_signed(vector.raw_headers):
        return 200 if source.answer_challenge(posted((), vector.body), now=NOW) else 401
    try:
        source.verify(posted(vector.raw_headers, vector.body), now=NOW)
    except InvalidSignature:
        return 401
    try:
        source.identify(source.parse(vector.body))
    except InvalidEnvelope:
        return 200 if source.answer_challenge(posted((), vector.body), now=NOW) else 400
    return 200


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_every_vector_gets_its_status(vector: Vector) -> None:
    assert status(vector) == vector.status


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


@given(st.binary(max_size=500), st.integers(0, 999_999_999_999))
def test_what_another_implementation_signed_is_accepted(body: bytes, timestamp: int) -> None:
    signer = awalchat(SECRET)
    headers = raw(signed_headers(body, timestamp=timestamp))
    known_as = hmac.digest(SECRET.encode(), b"awalchat key id", "sha256")[:4].hex()
    assert signer.verify(posted(headers, body), now=timestamp) == known_as  # as stored rows have it


@given(st.binary(max_size=500), st.integers(0, 999_999_999_999))
def test_our_own_signer_agrees_with_it(body: bytes, timestamp: int) -> None:
    theirs = signed_headers(body, timestamp=timestamp)["X-Awal-Webhook-Signature"]
    assert protocol.sign(SECRET, timestamp, body) == theirs


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"x-awal-webhook-timestamp", b"x-awal-webhook-signature"]),
            st.binary(max_size=80),
        ),
        max_size=4,
    ),
    st.binary(max_size=50),
)
def test_untrusted_input_raises_nothing_but_invalid_signature(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    with pytest.raises(InvalidSignature) as caught:
        source.verify(posted(headers, body), now=NOW)
    assert caught.value.reason


@pytest.mark.parametrize("away", [-300, 300])
def test_the_window_is_open_at_its_edge_and_closed_beyond(away: int) -> None:
    signer = awalchat(SECRET)
    headers = raw(signed_headers(b"{}", timestamp=NOW + away))
    signer.verify(posted(headers, b"{}"), now=NOW)
    with pytest.raises(InvalidSignature) as caught:
        signer.verify(posted(headers, b"{}"), now=NOW - (1 if away > 0 else -1))
    assert caught.value.reason == "timestamp_outside_window"


def test_the_key_that_matched_is_named_and_not_given_away() -> None:
    signer = awalchat("new_secret_0123456789", SECRET)
    matched = signer.verify(posted(raw(signed_headers(b"{}", timestamp=NOW)), b"{}"), now=NOW)
    assert signer.key_ids.index(matched) == 1
    assert len(matched) == 8
    assert SECRET not in matched
    assert matched not in hashlib.sha256(SECRET.encode()).hexdigest()


def test_a_signature_of_a_re_serialised_body_does_not_pass() -> None:
    sent = '{"event":"x","data":{"a":"مرحبا"}}'.encode()
    reserialised = b'{"event": "x", "data": {"a": "\\u0645"}}'
    headers = raw(signed_headers(reserialised, secret=SECRETS[0], timestamp=NOW))
    with pytest.raises(InvalidSignature) as caught:
        source.verify(posted(headers, sent), now=NOW)
    assert caught.value.reason == "signature_mismatch"


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        (b'{"type":"verification","challenge":"c"}', True),
        (b'{"type":"verification","challenge":"' + b"c" * 1024 + b'"}', True),
        (b'{"type":"verification","challenge":"' + b"c" * 1025 + b'"}', False),
        (b'{"type":"verification","challenge":"c"}' + b" " * 4096, False),
        (b'{"type":"verification"}', False),
        (b'{"type":"other","challenge":"c"}', False),
        (b'["verification"]', False),
        (b"\xff", False),
    ],
)
def test_only_a_well_formed_handshake_is_answered(body: bytes, answered: bool) -> None:
    assert (source.answer_challenge(posted((), body), now=NOW) is not None) is answered


def test_a_challenge_comes_back_the_same_whatever_it_holds() -> None:
    import json

    challenge = 'é"\\\n\x00\ud800'
    body = json.dumps({"type": "verification", "challenge": challenge}).encode()
    answer = source.answer_challenge(posted((), body), now=NOW)
    assert answer is not None
    assert json.loads(answer.body) == {"challenge": challenge}


def test_the_digest_is_compared_as_bytes_of_the_right_length() -> None:
    good = hmac.new(SECRETS[0].encode(), f"{NOW}.".encode(), hashlib.sha256).hexdigest()
    for bad in (good[:-2], good + "00", good[:-1] + "g", " " + good, good + "\n"):
        headers = [
            (b"x-awal-webhook-timestamp", str(NOW).encode()),
            (b"x-awal-webhook-signature", bad.encode()),
        ]
        with pytest.raises(InvalidSignature) as caught:
            source.verify(posted(headers, b""), now=NOW)
        assert caught.value.reason == "signature_malformed"
