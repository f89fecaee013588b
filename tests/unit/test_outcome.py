import math
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from ingest.store.pipeline.breaker_state import Sign
from ingest.store.pipeline.jobs import AbandonedJob, ClaimedJob, Failure, Outcome
from workers import Breaker, Discard, RetryAfter, Snooze, outcome
from workers.control import LONGEST_WAIT_S
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


def of(
    error: BaseException,
    failures: int = 0,
    max_attempts: int = 3,
    breaker: Breaker | None = None,
) -> Failure:
    declared = replace(processor(max_attempts), breaker=breaker)
    return outcome.of_error(job(failures), declared, raised(error), random=random.Random(1).uniform)


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
    [
        (-5, 0),
        (math.nan, 0),
        (math.inf, LONGEST_WAIT_S),
        (-math.inf, 0),
        (1e300, LONGEST_WAIT_S),
        pytest.param(int("9" * 400), LONGEST_WAIT_S, id="beyond every float"),
        pytest.param(-int("9" * 400), 0, id="below every float"),
    ],
)
def test_what_is_asked_for_is_never_longer_than_a_year(asked: float, waits: float) -> None:
    assert of(Snooze(asked)).retry_in_s == waits
    assert of(RetryAfter("busy", asked)).retry_in_s == waits


@pytest.mark.parametrize("asked", ["soon", None, object()])
def test_what_is_no_number_asks_for_no_wait(asked: Any) -> None:
    found = of(RetryAfter("busy", asked))
    assert (found.error_message, found.retry_in_s) == ("busy", 0)


def test_an_answer_whose_retry_after_is_beyond_every_date_is_recorded_without_it() -> None:
    class Answer:
        status_code = 503
        headers: ClassVar = {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}

    class Away(Exception):
        response = Answer()

    found = of(Away("no"), breaker=Breaker())
    assert (found.error_type, found.error_message, found.sign) == (
        Away.__qualname__,
        "no",
        Sign.DOWN,
    )
    assert found.target_back_in_s is None


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


class Hostile(Exception):
    """Runs code that raises when something of it is read."""

    def __init__(self, read: str, raises: BaseException) -> None:
        super().__init__("what it says")
        self.read, self.raises = read, raises

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "__dict__").get("read"):
            raise self.raises
        return super().__getattribute__(name)

    def __str__(self) -> str:
        if self.read == "__str__":
            raise self.raises
        return "what it says"


@pytest.mark.parametrize("raises", [RuntimeError(), SystemExit(1)], ids=repr)
@pytest.mark.parametrize(
    "read",
    ["__str__", "__class__", "__traceback__", "__cause__", "__context__", "response", "headers"],
)
@pytest.mark.parametrize("breaker", [None, Breaker()], ids=["alone", "breaker"])
def test_an_exception_is_recorded_whatever_reading_it_raises(
    read: str, raises: BaseException, breaker: Breaker | None
) -> None:
    found = of(Hostile(read, raises), breaker=breaker)
    assert (found.outcome, found.error_type) == (Outcome.FAILED, "Hostile")
    assert found.error_message
    assert found.retry_in_s is not None
    unread = outcome.of_unreadable_key(job(), processor(), Hostile(read, raises))
    assert (unread.outcome, unread.retry_in_s) == (Outcome.DISCARDED, None)
    assert unread.error_message


def test_the_wait_of_ones_own_that_cannot_be_read_is_none() -> None:
    class Busy(RetryAfter):
        @property
        def seconds(self) -> float:
            raise RuntimeError

        @seconds.setter
        def seconds(self, _: float) -> None: ...

    found = of(Busy("busy", 5), breaker=Breaker(on=Busy))
    assert (found.error_message, found.retry_in_s, found.sign) == ("busy", 0, Sign.DOWN)


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
    assert of(RetryAfter("busy", 1e12)).retry_in_s == LONGEST_WAIT_S
