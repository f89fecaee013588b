"""Bodies, headers and framings that somebody sends one day, by accident or not."""

import json

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

MIB = 1024 * 1024
MARK = "fuzz-mark-7c1e"
"""In every body and header value that is made here: no log may ever show it."""

# Lone surrogates and NUL too: JSON has escapes for what no text column takes.
TEXTS = st.text(
    st.characters(exclude_categories=()) | st.sampled_from('\x00\ud800\udfff\\"%:#@'), max_size=30
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
TYPES = TEXTS | st.sampled_from(
    ["message.received", "message.status.updated", "order.created", "fuzz.\x00", "fuzz.\udfff"]
)
DATA = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("message_id", "status", "order_id", "id", "timestamp"), LEAVES),
)
ENVELOPES = st.fixed_dictionaries(
    {"event": TYPES}, optional=dict.fromkeys(("id", "event_id", "timestamp"), VALUES)
)
# What json.dumps never writes and JSON allows.
NUMBERS = st.sampled_from(
    [
        "1e400",
        "-1E-400",
        "1e99999999999999999999999",
        "-0",
        "-0.0e-0",
        "9" * 4_300,
        "9" * 4_301,
        "-" + "7" * 5_000,
        "0." + "3" * 5_000,
    ]
)


@st.composite
def events(draw: DrawFn) -> bytes:
    """Events in the sense of the protocol: an object, `event` a string, `data` an object."""
    envelope = draw(ENVELOPES) | {"data": draw(DATA) | {"more": draw(VALUES)}, "mark": MARK}
    again = f'"twice": 1, "twice": {draw(NUMBERS)}, "event": {json.dumps(draw(TYPES))}'
    return f"{json.dumps(envelope)[:-1]}, {again}}}".encode()


def _cut(raw: bytes) -> SearchStrategy[bytes]:
    return st.integers(0, len(raw)).map(lambda end: raw[:end])


def _spoilt(raw: bytes) -> SearchStrategy[bytes]:
    """With a byte or two replaced."""
    return st.tuples(st.integers(0, len(raw)), st.binary(min_size=1, max_size=2)).map(
        lambda at_with: raw[: at_with[0]] + at_with[1] + raw[at_with[0] + len(at_with[1]) :]
    )


def mutated(raw: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Cut off, or with a byte or two replaced."""
    return raw.flatmap(_cut) | raw.flatmap(_spoilt)


bodies: SearchStrategy[bytes] = (
    st.binary(max_size=200).map(lambda raw: raw + MARK.encode())
    | mutated(events())
    | VALUES.map(lambda value: json.dumps([value, MARK]).encode())
    | events().map(lambda raw: raw.decode().encode("utf-16"))
    | TEXTS.map(lambda text: f'{{"event":"{text}","data":{{}}}}'.encode("utf-8", "surrogatepass"))
    | st.sampled_from([b"", b"NaN", b'{"event":"x","data":{"x":-Infinity}}', b"\xef\xbb\xbf{}"])
)


def _event(data: str, *, event_type: str = "fuzz.big") -> bytes:
    return f'{{"event":"{event_type}","mark":"{MARK}","data":{{{data}}}}}'.encode()


def _filled(piece: str) -> str:
    return piece * ((MIB - 200) // len(piece.encode()))


HEAVY: dict[str, tuple[int, bytes]] = {
    "1e5 open brackets": (400, _event('"x":' + "[" * 100_000)),
    "1e5 nested lists": (400, _event('"x":' + "[" * 100_000 + "]" * 100_000)),
    "1e5 nested objects": (400, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a MiB of brackets": (400, b"[" * MIB),
    "a MiB of pairs of brackets": (200, _event('"x":[' + _filled("[],") + "[]]")),
    "brackets in a string": (200, _event('"x":"' + _filled("[{") + '"')),
    "quotes that never end": (400, _filled('\\"').encode()),
    "many small keys": (200, _event(",".join(f'"{n}":{n}' for n in range(72_000)))),
    "one key many times": (200, _event(_filled('"k":0,') + '"k":1')),
    "an integer of a million digits": (200, _event('"n":' + _filled("8"))),
    "many long integers": (200, _event('"n":[' + _filled("9" * 4_301 + ",") + "1]")),
    "many huge exponents": (200, _event('"n":[' + _filled("1e400,") + "1]")),
    "a MiB of NUL": (200, _event('"x":"' + _filled("\\u0000") + '"')),
    "a MiB of lone surrogates": (200, _event('"x":"' + _filled("\\ud800") + '"')),
    "a type of a MiB": (200, _event("", event_type=_filled("é"))),
    "an order id of a MiB": (
        200,
        _event('"order_id":"' + _filled("\\u0000%") + '"', event_type="order.created"),
    ),
    "a MiB of bad UTF-8": (400, _event('"x":"?"').replace(b"?", b"\xff" * (MIB - 200))),
}

_CONTROLS = b"\r\n\x00"
HEADER_NAMES = st.sampled_from(
    [
        b"X-Awal-Webhook-Signature",
        b"X-Awal-Webhook-Timestamp",
        b"Content-Type",
        b"Content-Encoding",
        b"Expect",
        b"Connection",
        b"Cookie",
        b"User-Agent",
    ]
)
HEADER_VALUES = (
    st.binary(max_size=60).map(lambda value: value.translate(None, _CONTROLS) + MARK.encode())
    | st.binary(max_size=20)
    | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass").translate(None, _CONTROLS))
    | st.sampled_from(
        [
            b"",
            b"0" * 64,
            b"sha256=" + b"f" * 64,
            b"1" * 12,
            b"-1",
            b"+1700000000",
            b"1e9",
            "\u0661\u0667\u0660".encode(),  # digits to str.isdigit, and to nobody who reads HTTP
            b"gzip",
            b"application/json; charset=utf-16",
            b"100-continue",
            b"close",
            b"a" * 60_000,
            b"\xff" * 60_000,
        ]
    )
)
LENGTHS = st.text("0123456789+-_., \txe", max_size=6).map(str.encode) | st.sampled_from(
    [
        b"9" * 400,
        b"-9" * 20,
        b"18446744073709551616",
        b"9223372036854775808",
        b"\xb2",
        "\u0663".encode(),
    ]
)
CODINGS = st.lists(
    st.sampled_from(
        [
            "chunked",
            "Chunked",
            "gzip",
            "identity",
            "x",
            "\x0bchunked",
            "chunked;q=1",
            ",",
            " ",
            "\xff",
        ]
    ),
    max_size=3,
).map(lambda parts: ",".join(parts).encode("latin-1"))
