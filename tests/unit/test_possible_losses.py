"""What counts as a possible loss, and how a person is told."""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Route

from ingest.errors import (
    BodyTooLarge,
    BodyTooSlow,
    IngestError,
    InvalidSignature,
    StorageUnavailable,
    TooManyBodies,
)
from ingest.receiver.body import BodyLimits, BodyReader
from ingest.receiver.endpoint import Endpoint
from ingest.receiver.fastpath import FastPath
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests
from ingest.recovery import sentences
from ingest.sources import registry
from ingest.sources.awalchat.source import AwalChat
from ingest.sources.base import (
    Envelope,
    Headers,
    Retries,
    Source,
    SourceSettings,
    WebhookRequest,
)
from ingest.store.reports.possible_losses import PossibleLoss
from tests.support.serving import serving
from tests.support.signing import SECRET
from tests.support.sources import awalchat, described

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FORGED = [(b"x-hub-signature-256", b"sha256=00")]
LOOK = "look for what is missing at the sender"
BODY = b'{"action":"opened"}'
UNAVAILABLE = StorageUnavailable("No.", reason="no")


def received(*sources: Source) -> tuple[Intake, ReceiverMetrics]:
    metrics = ReceiverMetrics()
    intake = Intake(
        {source.slug: source for source in sources},
        None,  # type: ignore[arg-type]  # nothing is stored
        body_bytes=1_000,
        retry_after_s=7,
        clock=time.time,
        random=os.urandom,
        metrics=metrics,
        refused=RefusedRequests(metrics),
    )
    return intake, metrics


def signed(source: Source, *, now: int = 1) -> Headers:
    """Return the headers with which the sender signs the body."""
    of_body = source.sign(BODY, now=now)
    return [(name.lower().encode(), value.encode()) for name, value in of_body.items()]


def refused(metrics: ReceiverMetrics) -> dict[str, int]:
    """Return how many requests were refused, by reason."""
    return {reason: count for (_, _, reason), count in metrics._refused.items()}


@pytest.mark.parametrize(
    ("error", "body", "is_loss"),
    [
        (StorageUnavailable, BODY, True),
        (BodyTooSlow, None, False),
        (TooManyBodies, None, False),
        (BodyTooLarge, None, False),
        (InvalidSignature, BODY, False),
    ],
)
def test_what_was_verified_and_is_answered_503_and_not_sent_again_may_be_lost(
    error: type[IngestError], body: bytes | None, is_loss: bool
) -> None:
    source = described("github", SECRET, slug="hub")
    intake, metrics = received(source, awalchat(SECRET))
    request = intake.begin("hub", None, signed(source), "/webhooks/hub")
    intake.refuse(request, error("No.", reason="no"), body)
    assert metrics._losses == ({"hub": 1} if is_loss else {})
    assert refused(metrics) == {"no": 1}


def test_a_bug_of_ours_loses_what_was_verified() -> None:
    source = described("github", SECRET)
    intake, metrics = received(source)
    for headers, body in ((signed(source), BODY), (signed(source), None), (FORGED, BODY)):
        intake.fail(RuntimeError(), intake.begin("github", None, headers, "/webhooks/github"), body)
    assert metrics._losses == {"github": 1}
    assert metrics._faults == 3


class _Till(AwalChat):
    """A sender that sends nothing again; its plugin has a bug, before or after verifying."""

    retries = Retries(waits_s=())
    is_verified = True

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        if not self.is_verified:
            raise RuntimeError("a bug")
        return super().verify(request, now=now)

    def parse(self, body: bytes) -> Envelope:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("is_verified", [True, False])
def test_a_plugin_that_fails_before_it_has_verified_loses_nothing_that_is_known(
    is_fast: bool, is_verified: bool
) -> None:
    source = _Till(SourceSettings(secrets=(SecretStr(SECRET),)))
    source.is_verified = is_verified
    metrics, status = sent_to(source, signed(source, now=int(time.time())), BODY, is_fast=is_fast)
    assert status == 500
    assert metrics._losses == ({"awalchat": 1} if is_verified else {})
    assert metrics._faults == 1


def test_a_stranger_who_holds_a_body_back_is_counted_as_refused_and_as_no_loss() -> None:
    metrics, status = sent_to(described("github", SECRET), FORGED, BODY[:1])
    assert status == 503
    assert not metrics._losses
    assert metrics._refused == {("github", 503, "body_too_slow"): 1}


def sent_to(
    source: Source, headers: Headers, begun: bytes, *, is_fast: bool = True
) -> tuple[ReceiverMetrics, int]:
    """Send a request whose body may be held back in part; return what is counted of it, and the
    status of its answer."""
    intake, metrics = received(source)
    metrics._sources = intake.sources
    deadline_s = 60 if begun == BODY else 0.01
    bodies = BodyReader(BodyLimits(body_bytes=1_000, partial_bytes=10_000, deadline_s=deadline_s))
    endpoint = Endpoint(intake, bodies, Namer(waiting_bytes=10_000))
    app = Starlette(routes=[Route("/webhooks/{source}", endpoint, methods=["POST"])])
    lines = [b"%b: %b\r\n" % header for header in headers]
    head = b"POST /webhooks/%b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (
        source.slug.encode(),
        b"".join(lines),
        len(BODY),
    )

    async def send() -> bytes:
        fast_path = FastPath(intake, "/webhooks/") if is_fast else None
        async with serving(app, fast_path=fast_path) as (reader, connection):
            connection.write(head + begun)
            return await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)

    return metrics, int(asyncio.run(send()).split()[1])


def test_what_is_sent_again_or_not_verified_or_of_no_source_is_no_loss() -> None:
    source = awalchat(SECRET)
    intake, metrics = received(described("github", SECRET), source)
    for slug, sent in (
        ("awalchat", signed(source, now=int(time.time()))),
        ("github", []),
        ("github", FORGED),
        ("nobody", FORGED),
        ("", FORGED),
    ):
        intake.refuse(intake.begin(slug, None, sent, f"/webhooks/{slug}"), UNAVAILABLE, BODY)
    assert not metrics._losses
    assert refused(metrics) == {"no": 5}


def test_a_sender_gives_up_at_once_or_after_some_answers() -> None:
    assert Retries(waits_s=()).gives_up_after(503)
    assert Retries(waits_s=(1.0,), final=frozenset(range(100, 600))).gives_up_after(503)
    assert not Retries().gives_up_after(503)
    assert Retries().gives_up_after(410)
    assert described("github").retries.gives_up_after(503)
    assert not described("stripe").retries.gives_up_after(503)


@pytest.fixture
def _hub() -> Iterator[None]:
    ours = {
        "hub": type(described("github", slug="hub")),
        "other": type(described("github", slug="other", recover=None, title="Other")),
    }
    registry.use(ours)
    yield
    registry.use({})


@pytest.mark.usefixtures("_hub")
@pytest.mark.parametrize(
    ("source", "count", "ago", "told", "advice"),
    [
        ("hub", 3, "3:59", "3 deliveries from GitHub were", "run `ingest recover hub --since 4h`"),
        ("hub", 1, "0:00", "1 delivery from GitHub was", "run `ingest recover hub --since 1h`"),
        ("other", 1_000, "0:00", "1,000 deliveries from Other were", LOOK),
        ("gone", 2, "0:00", "2 deliveries from gone were", LOOK),
    ],
)
def test_a_possible_loss_is_told_with_what_to_do(
    source: str, count: int, ago: str, told: str, advice: str
) -> None:
    hours, minutes = map(int, ago.split(":"))
    since = NOW - timedelta(hours=hours, minutes=minutes)
    loss = PossibleLoss(source=source, deliveries=count, since=since)
    (sentence,) = sentences.of_losses([loss], now=NOW)
    assert sentence == f"{told} answered 5xx and will not be sent again: {advice}."
