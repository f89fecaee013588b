"""Every shipped description: published vectors and refusals, by the source and over HTTP."""

import asyncio
import base64
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.receiver.body import BodyLimits, BodyReader
from ingest.receiver.endpoint import Endpoint
from ingest.receiver.fastpath import FastPath
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests
from ingest.sources.base import Headers, Source
from ingest.sources.described import shipped
from ingest.sources.described.source import DescribedSource
from tests.support.serving import serving
from tests.support.sources import described, posted

NOW = 1_700_000_000
OLD = "b2xkX29sZF9vbGRfb2xkX29sZF9vbGQ="
NEW = "bmV3X25ld19uZXdfbmV3X25ld19uZXc="

LINES = (Path(__file__).parents[1] / "vectors/senders.jsonl").read_text().splitlines()
OTHERS = ("twilio", "meta", "raw_hmac_sha256_hex")
VECTORS = [line for line in map(json.loads, LINES) if line["sender"] not in OTHERS]
SIGNED = [name for name in shipped.names() if name != "moyasar"]

sender = pytest.mark.parametrize("name", SIGNED)


def source_of(vector: dict[str, Any]) -> DescribedSource:
    return described(vector["sender"].replace("_", "-"), vector["secret"], slug=vector["name"])


def headers_of(vector: dict[str, Any]) -> Headers:
    return [(name.encode(), value.encode()) for name, value in vector["headers"].items()]


def is_accepted(source: Source, headers: Headers, body: bytes, now: int = NOW) -> bool:
    try:
        source.verify(posted(headers, body), now=now)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_every_published_vector_gets_its_verdict(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["body_b64"])
    verdict = is_accepted(source_of(vector), headers_of(vector), body, vector["now"] or NOW)
    assert verdict is vector["valid"]


class Writer:
    """Commits at once."""

    def submit(self, _delivery: Any) -> asyncio.Future[None]:
        committed = asyncio.get_running_loop().create_future()
        committed.set_result(None)
        return committed

    async def append(self, delivery: Any) -> None:
        await self.submit(delivery)


@pytest.mark.parametrize(
    ("name", "body", "moment"),
    [
        (
            "salla",
            {"event": "order.created", "created_at": "Tue May 24 2022 09:24:17 GMT+0300"},
            datetime(2022, 5, 24, 6, 24, 17, tzinfo=UTC),
        ),
        ("salla", {"event": "order.created", "created_at": "2022-12-31 12:31:25"}, None),
        (
            "gitlab",
            {
                "object_kind": "merge_request",
                "object_attributes": {"updated_at": "2015-05-17 18:08:09 UTC"},
            },
            datetime(2015, 5, 17, 18, 8, 9, tzinfo=UTC),
        ),
    ],
)
def test_the_time_is_read_as_the_sender_spells_it(
    name: str, body: dict[str, Any], moment: datetime | None
) -> None:
    assert described(name).parse(json.dumps(body).encode()).occurred_at == moment


def statuses(
    sources: Sequence[Source], requests: Sequence[tuple[str, Headers, bytes, int]]
) -> list[int]:
    """Post to one receiver of all sources, at times of its own; return the answers' statuses."""
    clock = [0.0]
    metrics = ReceiverMetrics()
    intake = Intake(
        {source.slug: source for source in sources},
        Writer(),  # type: ignore[arg-type]  # as much of one as is needed
        body_bytes=100_000,
        retry_after_s=7,
        clock=lambda: clock[0],
        random=os.urandom,
        metrics=metrics,
        refused=RefusedRequests(metrics),
    )
    bodies = BodyReader(BodyLimits(body_bytes=100_000, partial_bytes=10**6, deadline_s=60))
    endpoint = Endpoint(intake, bodies, Namer(waiting_bytes=10_000))
    app = Starlette(routes=[Route("/webhooks/{source}", endpoint, methods=["POST", "GET"])])

    async def run(fast_path: FastPath | None) -> list[int]:
        answered = []
        async with serving(app, fast_path=fast_path) as (reader, connection):
            for slug, headers, body, now in requests:
                clock[0] = now
                lines = [b"%b: %b\r\n" % header for header in headers]
                head = f"POST /webhooks/{slug} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
                connection.write(head.encode() + b"\r\n" + b"".join(lines) + b"\r\n" + body)
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                fields = dict(line.split(": ", 1) for line in answer.decode().split("\r\n")[1:-2])
                await reader.readexactly(int(fields["content-length"]))
                answered.append(int(answer.split()[1]))
        return answered

    slow = asyncio.run(run(None))
    assert asyncio.run(run(FastPath(intake, "/webhooks/"))) == slow
    return slow


def test_one_receiver_gives_every_vector_its_verdict() -> None:
    """Some of the bodies are signed well and are no events: 400 is a verdict for them too."""
    requests = [
        (v["name"], headers_of(v), base64.b64decode(v["body_b64"]), v["now"] or NOW)
        for v in VECTORS
    ]
    answered = statuses([source_of(vector) for vector in VECTORS], requests)
    assert [status in (200, 400) for status in answered] == [v["valid"] for v in VECTORS]
    assert set(answered) == {200, 400, 401}


class Case:
    """A sample of a sender's, signed with its older secret."""

    def __init__(self, name: str) -> None:
        self.source = described(name, NEW, OLD)
        self.signer = described(name, OLD)
        sample = self.source.samples.types[0]
        self.body = self.source.samples.make(sample, Random(1), datetime.fromtimestamp(NOW, UTC))
        self.headers = self.signed()
        self.is_hmac = self.source.description.verify.is_hmac
        self.signature = (self.source.description.verify.header or "").split("|")[0].encode()

    def signed(self, now: int = NOW) -> Headers:
        signed = self.signer.sign(self.body, now=now).items()
        return [(name.lower().encode(), value.encode()) for name, value in signed]

    def accepts(self, headers: Headers, body: bytes | None = None, now: int = NOW) -> bool:
        return is_accepted(self.source, headers, self.body if body is None else body, now)

    def with_signature(self, *values: bytes) -> Headers:
        others = [header for header in self.headers if header[0] != self.signature]
        return [*others, *((self.signature, value) for value in values)]

    @property
    def value(self) -> bytes:
        return dict(self.headers)[self.signature]


@sender
def test_each_live_secret_is_taken_and_named_and_no_other(name: str) -> None:
    case = Case(name)
    matched = case.source.verify(posted(case.headers, case.body), now=NOW)
    assert case.source.key_ids.index(matched) == 1
    assert not is_accepted(described(name, NEW), case.headers, case.body)
    assert not is_accepted(described(name), case.headers, case.body)


@sender
def test_a_header_that_is_missing_empty_doubled_or_odd_is_refused(name: str) -> None:
    case = Case(name)
    odd = (b"", b"\xff\xfe", case.value + "é".encode(), b"x" + case.value, case.value[:-3])
    assert not any(case.accepts(case.with_signature(value)) for value in odd)
    assert not case.accepts(case.with_signature())
    assert not case.accepts(case.with_signature(case.value, case.value))


@sender
def test_hex_is_taken_in_either_case_and_base64_without_padding(name: str) -> None:
    case = Case(name)
    verify = case.source.description.verify
    if not case.is_hmac:
        assert not case.accepts(case.with_signature(case.value.swapcase()))
        return
    mark = (verify.field_separator if verify.field else verify.prefix).encode()
    start, separator, digest = case.value.rpartition(mark) if mark else (b"", b"", case.value)
    if verify.encoding != "hex":  # padding may hold the mark
        digest = digest or case.value
        assert case.accepts(case.with_signature(case.value.rstrip(b"=")))
        return
    assert case.accepts(case.with_signature(start + separator + digest.upper()))


@sender
def test_a_changed_or_re_serialised_body_is_refused_where_it_is_signed(name: str) -> None:
    case = Case(name)
    flipped = bytes([case.body[0] ^ 1]) + case.body[1:]
    spaced = json.dumps(json.loads(case.body), indent=1).encode()
    for body in (flipped, spaced, case.body + b"\n", b""):
        assert case.accepts(case.headers, body) is not case.is_hmac


@sender
def test_the_window_is_open_at_its_edges_and_closed_beyond(name: str) -> None:
    case = Case(name)
    time = case.source.description.time
    if time is None:
        assert case.accepts(case.headers, now=NOW + 10**9)
        return
    assert case.accepts(case.headers, now=NOW + time.past_s)
    assert not case.accepts(case.headers, now=NOW + time.past_s + 1)
    if time.future_s == "any":
        assert case.accepts(case.headers, now=NOW - 10**6)
        return
    assert case.accepts(case.headers, now=NOW - time.future_s)
    assert not case.accepts(case.headers, now=NOW - time.future_s - 1)


@sender
def test_headers_that_are_not_signed_can_be_swapped_and_rename_the_event(name: str) -> None:
    """What the pages warn of: a captured body, sent again under another type or id."""
    case = Case(name)
    signed = case.source.description.verify.signed
    names = [header for header, _ in case.headers if b"content" not in header]
    for header in names:
        swapped = [(n, b"swapped" if n == header else value) for n, value in case.headers]
        is_proven = header == case.signature or header.decode() in signed
        assert case.accepts(swapped) is not is_proven


@sender
def test_a_sample_has_the_type_that_it_declares_and_a_new_id_each_time(name: str) -> None:
    source, random = described(name, OLD), Random(1)
    for declared in source.samples.types:
        ids = set()
        for _ in range(3):
            body = source.samples.make(declared, random, datetime.fromtimestamp(NOW, UTC))
            signed = source.sign(body, now=NOW).items()
            headers = [(key.encode(), value.encode()) for key, value in signed]
            kept = [header for header in headers if header[0] in source.kept_headers]
            identity = source.identify(source.parse(body), kept)
            assert identity.type == declared
            ids.add(identity.event_id)
        assert len(ids) == 3


def test_one_receiver_of_all_senders_never_answers_with_a_fault() -> None:
    cases = {name: Case(name) for name in SIGNED}
    requests: list[tuple[str, Headers, bytes, int]] = []
    for name, case in cases.items():
        requests += [
            (name, case.headers, case.body, NOW),
            (name, case.headers, b"\xff", NOW),
            (name, case.with_signature(b"\xff"), case.body, NOW),
            (name, case.with_signature(), b"[" * 100, NOW),
            (name, case.headers[:1], case.body, NOW),
        ]
    answered = statuses([case.source for case in cases.values()], requests)
    assert answered[::5] == [200] * len(SIGNED)
    assert set(answered) <= {200, 400, 401}


def test_a_token_in_the_body_is_compared() -> None:
    source = described("moyasar", NEW, OLD)
    good = json.dumps({"id": "1", "type": "payment_paid", "secret_token": OLD}).encode()
    assert source.verify(posted((), good), now=NOW) == source.key_ids[1]
    for bad in (good.replace(b"b2x", b"b3x"), b"{}", b"[]", b"\xff", b'{"secret_token": 1}'):
        assert not is_accepted(source, (), bad)
    assert not is_accepted(source, (), good + b" " * 70_000)


def test_a_token_in_a_header_stands_behind_its_prefix() -> None:
    verify = {"scheme": "token", "header": "authorization", "prefix": "Bearer "}
    source = described("gitlab", NEW, OLD, slug="shop", verify=verify)
    assert source.sign(b"{}", now=NOW)["authorization"] == f"Bearer {NEW}"
    good = f"Bearer {OLD}".encode()
    assert source.verify(posted([(b"authorization", good)], b"{}"), now=NOW) == source.key_ids[1]
    for bad in (OLD.encode(), good.removesuffix(b"x")[:-1], b"bearer " + OLD.encode(), b"Bearer "):
        assert not is_accepted(source, [(b"authorization", bad)], b"{}")


def test_a_signed_challenge_is_answered_and_is_no_event() -> None:
    source = described("slack", OLD)
    body = b'{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}'
    headers = [(n.encode(), v.encode()) for n, v in source.sign(body, now=NOW).items()]
    answer = source.answer_challenge(posted(headers, body), now=NOW)
    assert answer is not None
    assert json.loads(answer.body) == {"challenge": "3eZbrw1aBm2rZgRNFdxV"}
    answered = statuses([source], [("slack", headers, body, NOW), ("slack", (), body, NOW)])
    assert answered == [200, 401]


def test_a_form_with_json_in_one_field_is_read_as_that_json() -> None:
    source = described("github", OLD)
    form = b"payload=%7B%22action%22%3A%22opened%22%7D"
    headers = [(b"x-github-event", b"issues"), (b"x-github-delivery", b"g-1")]
    assert source.identify(source.parse(form), headers).event_id == "issues.opened:g-1"
    slash = described("slack", OLD)
    parsed = slash.parse(
        b"payload=%7B%22type%22%3A%22block_actions%22%2C%22trigger_id%22%3A%221%22%7D"
    )
    assert slash.identify(parsed).event_id == "block_actions:1"


def test_a_batch_is_split_into_bodies_that_have_ids_of_their_own() -> None:
    source = described("kapso", OLD)
    batch = b'{"type":"x","batch":true,"data":[{"message":{"id":"a"}},{"message":{"id":"b"}},7]}'
    bodies = source.split(batch)
    assert bodies == [b'{"message":{"id":"a"}}', b'{"message":{"id":"b"}}', b"7"]
    headers = [(b"x-idempotency-key", b"k"), (b"x-webhook-event", b"whatsapp.message.received")]
    ids = {source.identify(source.parse(body), headers).event_id for body in bodies[:2]}
    assert len(ids) == 2
    assert source.split(b'{"message":{"id":"a"}}') is None


ENVELOPE: dict[str, Any] = {
    "split": {"path": "entry.0.items", "element": "envelope"},
    "id": ["{path:entry.0.items.0.id}"],
    "type": ["{path:kind}"],
}


def test_an_envelope_is_kept_around_each_event_of_a_list_in_a_list() -> None:
    source = described("standard-webhooks", OLD, **ENVELOPE)
    batch = b'{"kind":"x","entry":[{"items":[{"id":"a"},{"id":"b"}]},9]}'
    bodies = source.split(batch)
    assert bodies is not None
    assert [json.loads(body) for body in bodies] == [
        {"kind": "x", "entry": [{"items": [{"id": name}]}, 9]} for name in "ab"
    ]


def test_a_batch_whose_events_would_take_gigabytes_is_rejected() -> None:
    """Each of them repeats what stands beside the list."""
    source = described("standard-webhooks", OLD, **ENVELOPE)
    items = [{"id": number} for number in range(5_000)]
    batch = json.dumps({"kind": "x", "entry": [{"items": items}], "other": "x" * 500_000})
    with pytest.raises(InvalidEnvelope) as refused:
        source.split(batch.encode())
    assert refused.value.reason == "events_too_large"
