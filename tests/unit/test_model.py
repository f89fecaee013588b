"""The model of the protocol: it is right, each of its rules is needed, and histories are told from
others."""

import pytest

from tests.model.breakages import BREAKABLE, without
from tests.model.explore import explore
from tests.model.histories import History, is_possible
from tests.model.protocol import Attempt, start


@pytest.mark.parametrize(("events", "faults"), [(1, 4), (2, 2)])
def test_in_no_state_a_promise_is_broken_and_from_each_all_can_end(
    events: int, faults: int
) -> None:
    explored = explore(start(events=events, faults=faults))
    assert (explored.wrong, explored.way) == (None, ())
    assert explored.states > 20_000


@pytest.mark.parametrize("rule", BREAKABLE)
def test_without_each_of_its_rules_the_protocol_breaks_a_promise(rule: str) -> None:
    explored = without(rule)
    assert explored.wrong is not None, f"nothing needs the rule {rule}"
    assert explored.way


RETRIED = ((1, "delivery", "failed"), (2, "retry", "lost"), (3, "rescue", "released"))


def history(*attempts: tuple[int, str, str], **job: object) -> History:
    given: dict[str, object] = {
        "state": "succeeded",
        "trigger": "delivery",
        "attempt": 1,
        "failures": 0,
        "max_attempts": 4,
    }
    kept = tuple(Attempt(*attempt) for attempt in attempts)
    return History(attempts=kept, **(given | job))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "possible",
    [
        history(),
        history(*RETRIED, trigger="rescue", attempt=4, failures=2),
        history((1, "delivery", "succeeded"), trigger="replay", attempt=2),
        history((1, "delivery", "discarded"), state="dead", attempt=1, failures=1),
        history((1, "delivery", "discarded"), state="dead", attempt=1, is_discarded=True),
        history((1, "delivery", "failed"), state="dead", attempt=1, failures=1, max_attempts=1),
        history(state="pending", attempt=0),
    ],
)
def test_what_can_have_happened_to_a_job_is_possible(possible: History) -> None:
    assert is_possible(possible)


@pytest.mark.parametrize(
    "impossible",
    [
        pytest.param(history(attempt=2), id="an attempt that is not kept"),
        pytest.param(history((1, "delivery", "failed")), id="a success that was a failure"),
        pytest.param(
            history((1, "delivery", "lost"), trigger="retry", attempt=2, failures=1),
            id="a retry after a worker was lost",
        ),
        pytest.param(
            history(*RETRIED, trigger="rescue", attempt=4, failures=3), id="a failure too many"
        ),
        pytest.param(
            history((1, "delivery", "failed"), state="dead", failures=1), id="dead too early"
        ),
        pytest.param(
            history((2, "delivery", "failed"), trigger="retry", attempt=3, failures=1),
            id="a number left out",
        ),
        pytest.param(
            history((1, "delivery", "succeeded"), trigger="retry", attempt=2),
            id="run again without a replay",
        ),
        pytest.param(history(state="dead", is_discarded=True), id="a discard that is not kept"),
    ],
)
def test_what_cannot_have_happened_to_a_job_is_not(impossible: History) -> None:
    assert not is_possible(impossible)
