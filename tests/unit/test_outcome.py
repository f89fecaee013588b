import random
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from ingest.store.pipeline.jobs import AbandonedJob, ClaimedJob, Failure, Outcome
from workers import Discard, RetryAfter, Snooze, outcome
from workers.registry import Processor
from workers.retry import RetryPolicy
from workers.timeouts.signals import TimedOut

RULES = RetryPolicy(base_s=10, cap_s=100)


def job(failures: int = 0) -> ClaimedJob:
    return ClaimedJob(
        id=1,
        processor="p",
        attempt=failures + 1,
        failures=failures,
        trigger="delivery",
        event=uuid4(),
        source="awalchat",
        event_id="x:1",
        type="x",
        received_at=datetime.now(UTC),
        body=b"{}",
    )


def processor(max_attempts: int = 3) -> Processor:
    return Processor(
        name="p",
        types=("x",),
        function=print,
        batch=False,
        queue="events",
        threads=1,
        max_attempts=max_attempts,
        timeout_s=1.5,
        rules=RULES,
    )


def raised(error: BaseException) -> BaseException:
    def work(data: dict[str, Any]) -> None:
        raise error

    try:
        work({})
    except BaseException as caught:
        return caught
    raise AssertionError


def of(error: BaseException, failures: int = 0, max_attempts: int = 3) -> Failure:
    return outcome.of_error(
        job(failures), processor(max_attempts), raised(error), random=random.Random(1).uniform
    )


def test_an_exception_is_retried_within_the_ceiling_of_its_number() -> None:
    for failures, ceiling in ((0, 10), (1, 20)):
        found = of(ValueError("no"), failures)
        assert found.outcome is Outcome.FAILED
        assert found.counts
        assert found.retry_in_s is not None
        assert 0 <= found.retry_in_s <= ceiling


def test_the_last_attempt_makes_it_dead() -> None:
    assert of(ValueError("no"), failures=2).retry_in_s is None
    assert of(ValueError("no"), failures=0, max_attempts=1).retry_in_s is None


def test_discard_makes_it_dead_at_once_with_its_sentence() -> None:
    found = of(Discard("order_id is missing"))
    assert (found.outcome, found.retry_in_s) == (Outcome.DISCARDED, None)
    assert (found.error_type, found.error_message) == ("Discard", "order_id is missing")


def test_snooze_waits_as_long_as_it_says_and_spends_nothing() -> None:
    found = of(Snooze(90), failures=2)
    assert (found.outcome, found.retry_in_s, found.counts) == (Outcome.SNOOZED, 90, False)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(-5, 0), (float("nan"), 0), (float("inf"), 366 * 86_400), (1e300, 366 * 86_400)],
)
def test_a_snooze_is_never_longer_than_a_year(asked: float, waits: float) -> None:
    assert of(Snooze(asked)).retry_in_s == waits


def test_a_time_out_says_how_long_it_was_given() -> None:
    found = of(TimedOut())
    assert found.outcome is Outcome.TIMED_OUT
    assert found.error_message == "took longer than 1.5 s"
    assert found.counts


def test_the_traceback_begins_in_the_processor_and_shows_no_values() -> None:
    found = of(ValueError("no"))
    assert found.traceback is not None
    assert "in work" in found.traceback
    assert "in raised" not in found.traceback
    assert found.traceback.endswith("ValueError: no")


@pytest.mark.parametrize("message", ["a\x00b", "half \ud800", "x" * 100_000])
def test_whatever_the_message_holds_it_can_be_stored(message: str) -> None:
    found = of(ValueError(message))
    for text in (found.error_message, found.traceback):
        assert text is not None
        assert "\x00" not in text
        text.encode()
        assert len(text) <= outcome.TRACEBACK_LIMIT


def test_an_exception_that_cannot_be_shown_is_recorded_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "RuntimeError" in (of(Mute()).error_message or "")


def test_a_deep_recursion_leaves_a_short_traceback() -> None:
    def endless(data: dict[str, Any]) -> None:
        endless(data)

    try:
        endless({})
    except RecursionError as error:
        found = outcome.of_error(job(), processor(), error, random=random.uniform)
    assert found.traceback is not None
    assert len(found.traceback) <= outcome.TRACEBACK_LIMIT


def expired(failures: int = 0) -> AbandonedJob:
    return AbandonedJob(id=1, attempt=1, failures=failures, max_attempts=2, trigger="delivery")


def test_the_job_that_ended_its_worker_spends_an_attempt() -> None:
    found = outcome.of_lost_worker(
        expired(), "why", blamed=True, rules=RULES, random=random.uniform
    )
    assert (found.outcome, found.counts, found.rescued) == (Outcome.LOST, True, True)
    assert found.retry_in_s is not None
    last = outcome.of_lost_worker(
        expired(1), "why", blamed=True, rules=RULES, random=random.uniform
    )
    assert last.retry_in_s is None


def test_its_neighbours_spend_none_and_wait_for_nothing() -> None:
    found = outcome.of_lost_worker(
        expired(1), "why", blamed=False, rules=RULES, random=random.uniform
    )
    assert (found.outcome, found.counts, found.retry_in_s) == (Outcome.RELEASED, False, 0)


def test_an_answer_that_says_when_is_obeyed_and_spends_an_attempt() -> None:
    found = of(RetryAfter("busy", 4_000))
    assert (found.outcome, found.retry_in_s, found.counts) == (Outcome.FAILED, 4_000, True)
    assert (found.error_type, found.error_message) == ("RetryAfter", "busy")
    assert of(RetryAfter("busy", 4_000), failures=2).retry_in_s is None
    assert of(RetryAfter("busy", -1)).retry_in_s == 0
    assert of(RetryAfter("busy", 1e12)).retry_in_s == outcome.LONGEST_SNOOZE_S
