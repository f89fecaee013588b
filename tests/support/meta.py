"""Meta's signature and bodies, written from its documentation alone."""

import hashlib
import hmac
import json
from typing import Any

from pydantic import SecretStr

from ingest.sources.whatsapp.source import WhatsApp, WhatsAppSettings

APP_SECRET = "the_app_secret_of_the_tests_01234"
TOKEN = "a_verify_token_0123456789"
METADATA = {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"}


def whatsapp(*secrets: str, token: str | None = TOKEN) -> WhatsApp:
    """Return the source with these app secrets, newest first."""
    return WhatsApp(
        WhatsAppSettings(
            secrets=tuple(SecretStr(secret) for secret in secrets or (APP_SECRET,)),
            verify_token=None if token is None else SecretStr(token),
        )
    )


def signature(body: bytes, secret: str = APP_SECRET) -> bytes:
    """Return the value of X-Hub-Signature-256."""
    return b"sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()


def signed(body: bytes, secret: str = APP_SECRET) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request, as ASGI gives them."""
    return [(b"x-hub-signature-256", signature(body, secret))]


def change(field: str = "messages", **value: Any) -> dict[str, Any]:
    """Return a change; of the field `messages`, with its metadata."""
    if field == "messages":
        value = {"messaging_product": "whatsapp", "metadata": METADATA} | value
    return {"field": field, "value": value}


def body_of(*changes: Any, time: int | None = 1_750_000_000) -> bytes:
    """Return a body of one entry."""
    entry: dict[str, Any] = {"id": "102290129340398", "changes": list(changes)}
    if time is not None:
        entry["time"] = time
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def text(number: int, **more: Any) -> dict[str, Any]:
    """Return a message of text."""
    return {
        "from": f"96650000{number:04d}",
        "id": f"wamid.{number}",
        "timestamp": str(1_749_416_383 + number),
        "type": "text",
        "text": {"body": f"text {number}"},
    } | more


def status(number: int, state: str, **more: Any) -> dict[str, Any]:
    """Return a status."""
    return {
        "id": f"wamid.{number}",
        "status": state,
        "timestamp": str(1_750_030_073 + number),
        "recipient_id": f"96650000{number:04d}",
    } | more
