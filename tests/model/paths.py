"""Ways through the model that take each kind of step, to be gone by the real thing."""

from collections import deque
from collections.abc import Hashable, Sequence

from tests.model.protocol import RULES, Job, Rules, State, Step, steps

Way = Sequence[tuple[State, Step]]
"""Steps, each with the state that it is taken in."""


def ways(first: State, rules: Rules = RULES) -> list[Way]:
    """Return short ways that together take every kind of step that can be taken.

    Two steps are of one kind if they are called alike, and the job was alike before and is after.
    """
    came_from: dict[State, tuple[State, Step] | None] = {first: None}
    ends: dict[Hashable, tuple[State, Step]] = {}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        for step in steps(state, rules):
            ends.setdefault(kind(state, step), (state, step))
            if step.state not in came_from:
                came_from[step.state] = (state, step)
                waiting.append(step.state)
    return _covering([_way(came_from, *end) for end in ends.values()])


def kind(state: State, step: Step) -> Hashable:
    """Return what tells a step from one of another kind."""
    before, after = state.events[0], step.state.events[0]
    worker = state.workers[step.by] if step.by >= 0 else None
    is_ours = worker and before.job and worker.attempt == before.job.attempt
    return (
        step.what,
        is_ours,
        state.is_paused,
        _shape(before.job),
        _shape(after.job),
        step.kept and step.kept.outcome,
    )


def _shape(job: Job | None) -> Hashable:
    """Return the job without its numbers."""
    return job and job._replace(attempt=min(job.attempt, 1))


def _covering(found: list[Way]) -> list[Way]:
    """Return ways of which none takes only kinds that others take, the longest first."""
    taken: set[Hashable] = set()
    kept = []
    for way in sorted(found, key=len, reverse=True):
        kinds = {kind(*one) for one in way}
        if not kinds <= taken:
            taken |= kinds
            kept.append(way)
    return kept


def _way(
    came_from: dict[State, tuple[State, Step] | None], state: State, last: Step
) -> list[tuple[State, Step]]:
    way = [(state, last)]
    while (link := came_from[state]) is not None:
        way.append(link)
        state = link[0]
    return way[::-1]
