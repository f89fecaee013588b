"""The messages that are sent: `message.received` as documented, each another, signed by the
documentation alone."""

import hmac
import json
import time
from functools import cache
from itertools import accumulate
from random import Random

from tests.support.signing import SECRET

_TEXT = "مرحبا، أحتاج مساعدة في طلبي "  # "hello, I need help with my order"
_WORDS = 4_000
_WRITTEN = 200_000
"""Words of the text that bodies are cut from: about 1.5 MB."""
_LETTERS = ("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "abcdefghijklmnopqrstuvwxyz")


@cache
def _written() -> bytes:
    """A text in two alphabets, the n-th word 1/n as frequent as the first, as words are."""
    random = Random(20_260_120)
    words = [
        "".join(random.choices(_LETTERS[number % 2], k=random.randint(2, 10)))
        for number in range(_WORDS)
    ]
    weights = list(accumulate(1 / place for place in range(1, _WORDS + 1)))
    return " ".join(random.choices(words, cum_weights=weights, k=_WRITTEN)).encode()


def _words(number: int, length: int) -> str:
    """At most `length` bytes of words, elsewhere in the text for each number."""
    written = _written()
    begins = number * 7_919 % (len(written) - length)
    return written[begins : begins + length].decode(errors="ignore")


def body(number: int, *, body_bytes: int = 300, at: str = "2026-01-20T10:30:00Z") -> bytes:
    """Message `number`, about `body_bytes` long: 300 is what a short text comes to. A longer one is
    of words, since a server compresses what repeats itself."""
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
    return raw.replace(_TEXT.encode(), (_TEXT + _words(number, missing)).encode(), 1)


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
