"""What counts as a possible loss, and how a person is told."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ingest.errors import (
    BodyTooLarge,
    BodyTooSlow,
    IngestError,
    InvalidSignature,
    StorageUnavailable,
    TooManyBodies,
)
from ingest.receiver.intake import Intake
from ingest.receiver.metrics import ReceiverMetrics
from ingest.receiver.refused import RefusedRequests
from ingest.recovery import sentences
from ingest.sources import registry
from ingest.sources.base import Retries, Source
from ingest.store.reports.possible_losses import PossibleLoss
from tests.support.signing import SECRET
from tests.support.sources import awalchat, described

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SIGNED = [(b"x-hub-signature-256", b"sha256=00")]
LOOK = "look for what is missing at the sender"
BODY = b'{"action":"opened"}'


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


def refused(metrics: ReceiverMetrics) -> dict[str, int]:
    """Return how many requests were refused, by reason."""
    return {reason: count for (_, _, reason), count in metrics._refused.items()}


@pytest.mark.parametrize(
    ("error", "is_loss"),
    [
        (StorageUnavailable, True),
        (BodyTooSlow, True),
        (TooManyBodies, True),
        (BodyTooLarge, False),
        (InvalidSignature, False),
    ],
)
def test_what_is_answered_503_and_not_sent_again_may_be_lost(
    error: type[IngestError], is_loss: bool
) -> None:
    intake, metrics = received(described("github", SECRET, slug="hub"), awalchat(SECRET))
    request = intake.begin("hub", None, SIGNED, "/webhooks/hub")
    intake.refuse(request, error("No.", reason="no"))
    assert metrics._losses == ({"hub": 1} if is_loss else {})
    assert refused(metrics) == {"no": 1}


def test_a_bug_of_ours_loses_as_well() -> None:
    intake, metrics = received(described("github", SECRET))
    intake.fail(RuntimeError(), intake.begin("github", None, SIGNED, "/webhooks/github"))
    assert metrics._losses == {"github": 1}


def test_what_is_sent_again_or_not_signed_or_of_no_source_is_no_loss() -> None:
    source = awalchat(SECRET)
    intake, metrics = received(described("github", SECRET), source)
    signed = source.sign(BODY, now=1)
    headers = [(name.lower().encode(), value.encode()) for name, value in signed.items()]
    unavailable = StorageUnavailable("No.", reason="no")
    for slug, sent in (("awalchat", headers), ("github", []), ("nobody", SIGNED), ("", SIGNED)):
        intake.refuse(intake.begin(slug, None, sent, f"/webhooks/{slug}"), unavailable)
    assert not metrics._losses
    assert refused(metrics) == {"no": 4}


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
