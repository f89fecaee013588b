"""The messages that are sent: `message.received` as documented, each another, signed by the
documentation alone."""

import hmac
import json
import time

from tests.support.signing import SECRET

_TEXT = "مرحبا، أحتاج مساعدة في طلبي "  # "hello, I need help with my order"


def body(number: int, *, body_bytes: int = 300, at: str = "2026-01-20T10:30:00Z") -> bytes:
    """Message `number`, about `body_bytes` long: 300 is what a short text comes to."""
    data = {
        "message_id": f"wamid.HBgMOTY2NTAwMDAwMDAwFQIAERgS{number:012d}",
        "conversation_id": number % 5_000,
        "from": f"9665{number % 5_000:08d}",
        "to": "966500000001",
        "type": "text",
        "body": _TEXT,
        "timestamp": at,
    }
    envelope = {"event": "message.received", "timestamp": at, "data": data}
    raw = json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()
    missing = body_bytes - len(raw)
    if missing <= 0:
        return raw
    return raw.replace(_TEXT.encode(), _TEXT.encode() + b"." * missing, 1)


def requests(path: str, first: int, count: int, *, body_bytes: int, now: int) -> list[bytes]:
    """Whole HTTP requests, signed as sent at `now` (Unix seconds)."""
    return [
        _request(path, body(number, body_bytes=body_bytes), str(now).encode())
        for number in range(first, first + count)
    ]


def _request(path: str, raw: bytes, timestamp: bytes) -> bytes:
    signature = hmac.digest(SECRET.encode(), timestamp + b"." + raw, "sha256")
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nX-Awal-Webhook-Timestamp: %b\r\n"
        b"X-Awal-Webhook-Signature: %b\r\n\r\n%b"
        % (path.encode(), len(raw), timestamp, signature.hex().encode(), raw)
    )


def moment(now: float) -> str:
    """Unix seconds as the payloads spell a time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
