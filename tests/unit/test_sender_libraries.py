"""The senders' own libraries sign, and the descriptions verify; and the other way round."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
import stripe
import svix
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr, ValidationError
from slack_sdk.signature import Clock, SignatureVerifier

from ingest.errors import InvalidSignature
from ingest.sources.base import CannotSign, Source, WebhookRequest
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.source import source_class

NOW = 1_750_030_100
MOMENT = datetime.fromtimestamp(NOW, UTC)
BODY = json.dumps({"type": "invoice.paid", "text": "\u00e9\U0001f339", "n": 1.50}).encode()
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


def described(name: str, *secrets: str) -> Source:
    made = source_class(name, Description.model_validate(shipped.table(name)))
    return made(made.settings(secrets=tuple(SecretStr(secret) for secret in secrets)))


def request(headers: Mapping[str, Any], body: bytes = BODY) -> WebhookRequest:
    raw = [(name.lower().encode(), str(value).encode()) for name, value in headers.items()]
    return WebhookRequest("POST", "/webhooks/x", raw, body)


def accepts(source: Source, headers: Mapping[str, Any], body: bytes = BODY) -> bool:
    try:
        source.verify(request(headers, body), now=NOW)
    except InvalidSignature:
        return False
    return True


def by_standardwebhooks(secret: str) -> dict[str, str]:
    signature = standardwebhooks.Webhook(secret).sign("msg_1", MOMENT, BODY.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}


def by_svix(secret: str) -> dict[str, str]:
    signature = svix.Webhook(secret).sign("msg_1", MOMENT, BODY.decode())
    return {"svix-id": "msg_1", "svix-timestamp": str(NOW), "svix-signature": signature}


def by_stripe(secret: str) -> dict[str, str]:
    signed = f"{NOW}.{BODY.decode()}"
    signature = stripe.WebhookSignature._compute_signature(signed, secret)
    return {"stripe-signature": f"t={NOW},v1={signature},v0={'0' * 64}"}


def by_slack(secret: str) -> dict[str, str]:
    verifier = SignatureVerifier(secret)
    signature = verifier.generate_signature(timestamp=str(NOW), body=BODY)
    assert signature is not None
    return {"x-slack-request-timestamp": str(NOW), "x-slack-signature": signature}


LIBRARIES = pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("standard-webhooks", by_standardwebhooks),
        ("standard-webhooks", by_svix),
        ("stripe", by_stripe),
        ("slack", by_slack),
    ],
    ids=["standardwebhooks", "svix", "stripe", "slack_sdk"],
)


@LIBRARIES
def test_what_a_library_signs_is_accepted_and_what_is_changed_is_not(name: str, sign: Any) -> None:
    headers = sign(SECRET)
    assert accepts(described(name, SECRET), headers)
    assert accepts(described(name, OTHER, SECRET), headers)
    assert not accepts(described(name, OTHER), headers)
    assert not accepts(described(name, SECRET), headers, BODY + b" ")
    assert not accepts(described(name, SECRET), headers, BODY.replace(b"1.5", b"1.6"))


class At(Clock):
    """The time of the tests."""

    def now(self) -> float:
        return NOW


def test_what_is_signed_here_is_accepted_by_the_libraries() -> None:
    signed = described("slack", SECRET).sign(BODY, now=NOW)
    assert SignatureVerifier(SECRET, clock=At()).is_valid_request(BODY, dict(signed))
    signed = described("stripe", SECRET).sign(BODY, now=NOW)
    header = {name.lower(): value for name, value in signed.items()}["stripe-signature"]
    assert stripe.WebhookSignature.verify_header(BODY.decode(), header, SECRET)
    signed = described("standard-webhooks", SECRET).sign(BODY, now=int(time.time()))
    assert standardwebhooks.Webhook(SECRET).verify(BODY, dict(signed)) == json.loads(BODY)


def test_a_public_key_among_the_secrets_verifies_the_items_of_its_version() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()
    signature = base64.b64encode(private.sign(f"msg_1.{NOW}.".encode() + BODY)).decode()
    headers = by_standardwebhooks(OTHER)
    source = described("standard-webhooks", SECRET, public)
    assert not accepts(source, headers)
    both = headers | {"webhook-signature": f"{headers['webhook-signature']} v1a,{signature}"}
    assert accepts(source, both)
    assert source.verify(request(both), now=NOW) == source.key_ids[1]
    assert accepts(described("standard-webhooks", public), both)
    assert not accepts(described("standard-webhooks", public), both, BODY + b" ")
    alone = {**headers, "webhook-signature": f"v1,{signature}"}
    assert not accepts(described("standard-webhooks", public), alone)  # of the other version
    with pytest.raises(CannotSign):
        described("standard-webhooks", public).sign(BODY, now=NOW)


def test_of_many_signatures_by_public_keys_the_first_few_are_checked() -> None:
    """Each takes as long as it takes to read the body, whoever has sent them."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()
    good = base64.b64encode(private.sign(f"msg_1.{NOW}.".encode() + BODY)).decode()
    wrong = "v1a," + base64.b64encode(bytes(64)).decode()
    source = described("standard-webhooks", public)
    headers = by_standardwebhooks(OTHER)
    for others, is_good in ((3, True), (4, False)):
        items = " ".join([*[wrong] * others, f"v1a,{good}"])
        assert accepts(source, headers | {"webhook-signature": items}) is is_good


def test_a_sender_with_public_keys_alone_is_described_too() -> None:
    """As Discord signs: Ed25519 over the timestamp and the body, everything in hex."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes_raw().hex()
    made = source_class(
        "discord",
        Description.model_validate(
            {
                "title": "Discord",
                "id": "{path:id}",
                "type": "{path:type}",
                "verify": {
                    "scheme": "ed25519",
                    "header": "x-signature-ed25519",
                    "key": "hex",
                    "signed": "{header:x-signature-timestamp}{body}",
                },
                "time": {"header": "x-signature-timestamp"},
                "samples": [{"type": "1", "body": "{}"}],
            }
        ),
    )
    source = made(made.settings(secrets=(SecretStr(public),)))
    signature = private.sign(str(NOW).encode() + BODY).hex()
    headers = {"x-signature-ed25519": signature, "x-signature-timestamp": str(NOW)}
    assert accepts(source, headers)
    assert not accepts(source, headers | {"x-signature-timestamp": str(NOW - 1)})
    with pytest.raises(ValidationError, match="is no Ed25519 public key in hex"):
        made.settings(secrets=(SecretStr(public[:-2]),))
