"""Says step by step whether a saved request would be accepted and, if not, what is to blame."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ingest.errors import IngestError, InvalidEnvelope, InvalidSignature
from ingest.sources.base import Source, WebhookRequest
from ingest.sources.identities import NamedBody, name_body

Part = Literal["request", "header", "secret", "time", "body"]
"""What a step looks at; of a step that fails, what is to blame."""

_TIMES = re.compile(rb"(?<![0-9])(1[0-9]{9})([0-9]{3})?(?![0-9])")
"""What may be a time of the years 2001 to 2033, in seconds or milliseconds."""
_MOST_TIMES = 5
"""Each costs a signature of each body that there may have been."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


class BadRequestFile(IngestError):
    """A file holds no HTTP request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was looked at."""

    part: Part
    is_good: bool
    sentence: str
    advice: str = ""
    """What to do if it is not good."""


def read_request(raw: bytes) -> WebhookRequest:
    """Return a saved request: its first line, its headers, an empty line, and the body's bytes.

    Raises:
        BadRequestFile: it is not written so.
    """
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator or b"\n\n" in head:
        head, separator, body = raw.partition(b"\n\n")
    lines = head.splitlines()
    first = lines[0].split() if lines else []
    if not separator or len(first) not in (2, 3):
        raise BadRequestFile(
            "The file is no HTTP request: a line such as `POST /webhooks/x HTTP/1.1`, the headers,"
            " an empty line and the body.",
            reason="bad_request_file",
        )
    headers: list[tuple[bytes, bytes]] = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name.strip():
            raise BadRequestFile(
                f"Line {len(headers) + 2} of the file is no header: a name, a colon, a value.",
                reason="bad_request_file",
            )
        headers.append((name.strip().lower(), value.strip()))
    return WebhookRequest(first[0].decode("latin-1"), first[1].decode("latin-1"), headers, body)


def diagnose(
    source: Source, request: WebhookRequest, *, now: int, body_limit: int
) -> Iterator[Step]:
    """Yield what is looked at, in its order; after a step that fails there is none.

    No sentence holds a secret, a signature, or the query, in which some senders send a token.

    Args:
        source: whose request it is.
        request: as it was sent.
        now: Unix time in seconds, as of which it is looked at.
        body_limit: the size of the largest body that is accepted, in bytes.
    """
    path, _, query = request.target.partition("?")
    yield Step(
        part="request",
        is_good=True,
        sentence=f"{request.method} {path}{' with a query' if query else ''},"
        f" {len(request.headers)} headers, a body of {len(request.body):,} bytes.",
    )
    yield from _until_bad(
        [
            _path(source, request),
            _secrets(source),
            _size(request, body_limit),
            _signature(source, request, now),
            _events(source, request, now),
        ]
    )


def _until_bad(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if not step.is_good:
            return


def _path(source: Source, request: WebhookRequest) -> Step:
    path = f"/webhooks/{source.slug}"
    is_good = request.method in ("POST", "GET") and request.target.partition("?")[0] == path
    if is_good:
        return Step(part="request", is_good=True, sentence=f"It goes to {path}.")
    return Step(
        part="request",
        is_good=False,
        sentence=f"It has to be a POST to {path}.",
        advice="Correct the address at the sender.",
    )


def _secrets(source: Source) -> Step:
    if not source.needs_secret():
        return Step(part="secret", is_good=True, sentence="The source needs no secret.")
    if source.secrets:
        sentence = f"The source has the keys {', '.join(source.key_ids)}."
        return Step(part="secret", is_good=True, sentence=sentence)
    variable = source.variable("secrets")
    return Step(
        part="secret",
        is_good=False,
        sentence=f"The source has no secret: its path is 404. Set {variable}.",
    )


def _size(request: WebhookRequest, body_limit: int) -> Step:
    is_good = len(request.body) <= body_limit
    if is_good:
        sentence = f"The body is within the limit of {body_limit:,} bytes."
        return Step(part="body", is_good=True, sentence=sentence)
    return Step(
        part="body",
        is_good=False,
        sentence=f"The body is larger than {body_limit:,} bytes, which is answered 413.",
        advice="If such bodies are wanted, raise INGEST_MAX_BODY_BYTES, or the body_limit of the"
        " source's description.",
    )


def _signature(source: Source, request: WebhookRequest, now: int) -> Step:
    try:
        key = source.verify(request, now=now)
    except InvalidSignature as error:
        if not source.is_signed(request.headers) or request.method == "GET":
            return _unsigned(source, request, now, error)
        return _blame(source, request, error, now)
    return Step(part="secret", is_good=True, sentence=f"The key {key} signed it.")


def _unsigned(source: Source, request: WebhookRequest, now: int, error: InvalidSignature) -> Step:
    try:
        is_challenge = source.answer_challenge(request, now=now) is not None
    except InvalidSignature as refusal:
        return Step(
            part="request",
            is_good=False,
            sentence=str(refusal),
            advice="Enter the same verify token at the sender and here.",
        )
    if is_challenge and not source.signs_challenges:
        sentence = "It is a challenge, which is answered without a signature."
        return Step(part="request", is_good=True, sentence=sentence)
    return _bad_header(error)


def _blame(source: Source, request: WebhookRequest, error: InvalidSignature, now: int) -> Step:
    if "_mismatch" not in error.reason and "window" not in error.reason:
        return _bad_header(error)
    if not source.signs_bodies:
        return _wrong_secret(source, f"{error} It is none of the secrets here.")
    for moment in _moments(request):
        if _passes(source, request, moment):
            return Step(
                part="time",
                is_good=False,
                sentence="Secret and body are right; only the time is not: the request was signed"
                f" {_apart(moment - now)}, and up to {source.tolerance_s} s are tolerated.",
                advice="Set the clocks of both machines by NTP. If something holds requests back"
                f" for longer, raise {source.variable('tolerance_s')}.",
            )
    for what, body in _other_bodies(request.body):
        changed = request._replace(body=body)
        if any(_passes(source, changed, moment) for moment in (now, *_moments(request))):
            return Step(
                part="body",
                is_good=False,
                sentence=f"The body was changed on its way: {what}.",
                advice="Let what stands before the receiver pass bodies on byte for byte.",
            )
    return _wrong_secret(
        source,
        f"{error} None of the keys signed this body: either the sender has another secret,"
        " or the body was changed on its way (by a proxy, or by being parsed and written again).",
    )


def _bad_header(error: InvalidSignature) -> Step:
    advice = (
        "Compare the header with what the sender's documentation shows: another kind of sender, or"
        " a proxy, may have written it."
    )
    if error.reason.endswith("_missing"):
        advice = (
            "See that the sender signs, that it sends to the path of its own source, and that no"
            " proxy takes the header away."
        )
    return Step(part="header", is_good=False, sentence=str(error), advice=advice)


def _wrong_secret(source: Source, sentence: str) -> Step:
    place = source.file("secrets") or source.variable("secrets")
    return Step(
        part="secret",
        is_good=False,
        sentence=sentence,
        advice=f"Compare the sender's secret with {place}; while one follows another, both may"
        " stand there.",
    )


def _events(source: Source, request: WebhookRequest, now: int) -> Step:
    kept = [header for header in request.headers if header[0] in source.kept_headers]
    named = name_body(source, request.body, kept)
    if isinstance(named, InvalidEnvelope):
        if source.answer_challenge(request, now=now) is not None:
            return Step(part="body", is_good=True, sentence="It is a challenge, and is answered.")
        return Step(part="body", is_good=False, sentence=f"{named} ({named.reason})")
    return Step(part="body", is_good=True, sentence=_told(named))


def _told(named: NamedBody) -> str:
    if not isinstance(named, list):
        assert not isinstance(named, InvalidEnvelope)
        return f"It is the event {named.event_id} of the type {named.type}."
    broken = [element.name for element in named if isinstance(element.name, InvalidEnvelope)]
    sentence = f"It holds {len(named) - len(broken)} events"
    if broken:
        reasons = ", ".join(sorted({error.reason for error in broken}))
        sentence += f", and {len(broken)} elements that are rejected ({reasons})"
    return f"{sentence}."


def _passes(source: Source, request: WebhookRequest, now: int) -> bool:
    try:
        source.verify(request, now=now)
    except InvalidSignature:
        return False
    return True


def _moments(request: WebhookRequest) -> list[int]:
    """Return the times that stand in the headers, as Unix seconds."""
    matches = [match for _, value in request.headers for match in _TIMES.finditer(value)]
    return list(dict.fromkeys(int(match.group(1)) for match in matches))[:_MOST_TIMES]


def _other_bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what the body may have been before it was changed, and what changed it."""
    if body.endswith(b"\n"):
        yield "a line break was added at its end", body.rstrip(b"\r\n")
    yield "a line break at its end was taken away", body + b"\n"
    yield "its line breaks were converted", body.replace(b"\r\n", b"\n")
    yield "its line breaks were converted", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return
    for separators in ((",", ":"), (", ", ": ")):
        for is_ascii in (True, False):
            written = json.dumps(parsed, separators=separators, ensure_ascii=is_ascii)
            yield "it was parsed and written again", written.encode("utf-8", "surrogatepass")
            slashes = written.replace("/", "\\/")
            yield "it was parsed and written again", slashes.encode("utf-8", "surrogatepass")


def _apart(seconds: int) -> str:
    amount = abs(seconds)
    for unit, size in (("days", _DAY_S), ("hours", _HOUR_S), ("minutes", _MINUTE_S)):
        if amount >= 2 * size:
            return f"{amount // size} {unit} {'ahead' if seconds > 0 else 'ago'}"
    return f"{amount} seconds {'ahead' if seconds > 0 else 'ago'}"
