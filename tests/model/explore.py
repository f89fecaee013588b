"""Visit every state that the protocol can come to, and hold what must be true of each."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.protocol import RULES, Event, Rules, State, Step, Worker, steps


class TooManyStates(Exception):
    """There are more states than may be visited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What came of visiting all states."""

    states: int
    steps: int
    wrong: str | None
    """What does not hold in some state; or that work never ends after it. None: nothing."""
    way: tuple[str, ...]
    """The shortest way to that state."""


def explore(
    first: State,
    rules: Rules = RULES,
    *,
    most: int = 10_000_000,
) -> Explored:
    """Visit all states breadth first; stop at the first of which something is wrong.

    States that differ in which event or worker is which are one state.

    Args:
        first: where to begin.
        rules: of the protocol.
        most: so many states may be visited.

    Raises:
        TooManyStates: there are more.
    """
    first = _canonical(first)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    before: dict[State, list[State]] = {}
    waiting, taken = deque([first]), 0
    ended = []
    while waiting:
        state = waiting.popleft()
        wrong = problem(state, rules)
        if wrong is not None:
            return _explored(came_from, taken, wrong, state)
        if is_done(state):
            ended.append(state)
        for step in steps(state, rules):
            taken += 1
            after = _canonical(step.state)
            if not step.is_fault:
                before.setdefault(after, []).append(state)
            if after not in came_from:
                came_from[after] = (state, _spelled(step))
                waiting.append(after)
                if len(came_from) > most:
                    raise TooManyStates(f"more than {most:,} states")
    stuck = _cannot_end(came_from, ended, before)
    if stuck is not None:
        return _explored(came_from, taken, "work never ends", stuck)
    return Explored(states=len(came_from), steps=taken, wrong=None, way=())


def problem(state: State, rules: Rules) -> str | None:
    """Return which promise a state breaks; None: none."""
    for number, event in enumerate(state.events):
        wrong = _problem_of(event, rules)
        if wrong is not None:
            return wrong
        holders = sum(worker.event == number and _holds(worker, event) for worker in state.workers)
        if holders > 1:
            return "two workers hold one attempt"
    return None


def is_done(state: State) -> bool:
    """Return whether all that was to be done is done: answered, admitted, worked on."""
    return all(
        event.sender == "told"
        and not event.unadmitted
        and event.job is not None
        and event.job.state in ("succeeded", "dead")
        for event in state.events
    )


def _problem_of(event: Event, rules: Rules) -> str | None:
    job = event.job
    if event.sender == "told" and not event.stored:
        return "what was answered is not stored"
    if (job is None) != (event.stored == event.unadmitted):
        return "a delivery is neither admitted nor waiting to be"
    if job is None:
        return None if not event.effects else "there are effects of no event"
    if event.effects != (job.state == "succeeded"):
        return f"a job that is {job.state} has taken effect, times: {event.effects}"
    missing = job.attempt - (job.state in ("running", "succeeded")) - event.kept
    if missing:
        how_many = f"lacks {missing}" if missing > 0 else f"has {-missing} too many"
        return f"a job that is {job.state} {how_many} of its attempts"
    if job.failures > rules.max_attempts:
        return f"it has failed {job.failures} times of {rules.max_attempts}"
    return None


def _holds(worker: Worker, event: Event) -> bool:
    job = event.job
    return job is not None and job.state == "running" and job.attempt == worker.attempt


def _cannot_end(
    states: dict[State, tuple[State, str] | None],
    ended: list[State],
    before: dict[State, list[State]],
) -> State | None:
    """Return the first state after which, without a further fault, all can never be done."""
    can_end, waiting = set(ended), deque(ended)
    while waiting:
        for state in before.get(waiting.popleft(), ()):
            if state not in can_end:
                can_end.add(state)
                waiting.append(state)
    return next((state for state in states if state not in can_end), None)


def _explored(
    came_from: dict[State, tuple[State, str] | None], taken: int, wrong: str, state: State
) -> Explored:
    return Explored(
        states=len(came_from), steps=taken, wrong=wrong, way=tuple(_way(came_from, state))
    )


def _way(came_from: dict[State, tuple[State, str] | None], state: State) -> Iterator[str]:
    taken = []
    while (link := came_from[state]) is not None:
        state, what = link
        taken.append(what)
    yield from reversed(taken)


def _spelled(step: Step) -> str:
    by = "" if step.by < 0 else "a worker: "
    return f"{by}{step.what}" + ("" if step.event < 0 else f" ({step.event + 1})")


def _canonical(state: State) -> State:
    """Return the one of the states that differ only in which event and worker is which, and in
    where the numbers of attempts begin."""
    lowest = [_lowest_attempt(number, state) for number in range(len(state.events))]
    events = [
        _counted_from(first, event) for first, event in zip(lowest, state.events, strict=True)
    ]
    order = sorted(range(len(events)), key=lambda number: _key(events[number]))
    place = {old: new for new, old in enumerate(order)}
    return state._replace(
        events=tuple(events[number] for number in order),
        workers=tuple(
            sorted(
                worker
                if worker.is_idle
                else Worker(place[worker.event], worker.attempt - lowest[worker.event])
                for worker in state.workers
            )
        ),
    )


def _lowest_attempt(number: int, state: State) -> int:
    """Return the lowest number of an attempt that anybody knows of."""
    job = state.events[number].job
    known = [worker.attempt for worker in state.workers if worker.event == number]
    return min([*known, job.attempt]) if job is not None else 0


def _counted_from(lowest: int, event: Event) -> Event:
    if not lowest or event.job is None:
        return event
    job = event.job._replace(attempt=event.job.attempt - lowest)
    return event._replace(job=job, kept=event.kept - lowest)


def _key(event: Event) -> tuple[object, ...]:
    return (*event[:4], event.job or (), *event[5:])
