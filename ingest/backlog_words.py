"""The backlog in words: the same on the overview, in `ingest up`, in `ingest stats`."""

from ingest.durations import in_words
from ingest.store.reports.behind import Backlog

_SOON_S = 7 * 86_400.0
"""A backlog that takes longer to go does not go."""
_LEAST_PER_S = 1 / 60
"""A change of less than one in a minute is none."""


def amount(backlog: Backlog) -> str:
    """Return how much is behind: `10,172 behind`, or what is to be said if nothing is late."""
    if backlog.since is None:
        return "Nothing is behind"
    return f"{_counted(backlog)} behind"


def parts(backlog: Backlog) -> str:
    """Return what the total consists of: `10,000 deliveries to admit, 172 jobs due`."""
    deliveries = _number_of(backlog.deliveries, "delivery", "deliveries")
    return f"{deliveries} to admit, {_number_of(backlog.jobs, 'job', 'jobs')} due"


def speed(backlog: Backlog) -> str:
    """Return how fast the backlog changes, and when it will be gone."""
    if backlog.change_per_s is None:
        return _speed_of_age(backlog)
    change = backlog.change_per_s
    if abs(change) < _LEAST_PER_S:
        return "neither grows nor shrinks"
    if change > 0:
        return f"grows by {_rate(change)}"
    return f"shrinks by {_rate(-change)}{_end(backlog)}"


def _speed_of_age(backlog: Backlog) -> str:
    """Return the same, where only the age of the oldest is known."""
    if backlog.age_change is None:
        return "its speed is not known yet"
    if backlog.age_change < 0:
        return f"catches up{_end(backlog)}"
    return "does not catch up"


def sentence(backlog: Backlog) -> str:
    """Return all of it in one sentence, without a full stop."""
    held = f"; {held_back(backlog)}" if backlog.held else ""
    if backlog.since is None:
        return f"{amount(backlog)}{_at_hand(backlog)}{held}"
    late = f"{in_words(backlog.age_s)} late, since {backlog.since:%Y-%m-%d %H:%M:%S %Z}"
    return f"{amount(backlog)} ({parts(backlog)}), {late}; {speed(backlog)}{held}"


def short(backlog: Backlog) -> str:
    """Return it in at most some 50 characters."""
    if backlog.since is None:
        return "nothing behind"
    if backlog.gone_in_s is not None and backlog.gone_in_s < _SOON_S:
        heading = f"gone in {in_words(backlog.gone_in_s)}"
    elif backlog.age_change is None:
        heading = "speed unknown"
    else:
        is_growing = (backlog.change_per_s or 0) > 0 or backlog.change_per_s is None
        heading = "grows" if is_growing else "does not shrink"
    return f"{_counted(backlog)} behind by {in_words(backlog.age_s)}, {heading}"


def held_back(backlog: Backlog) -> str:
    """Return how many jobs wait for an operator, or for a worker that can take them."""
    them = "it" if backlog.held == 1 else "them"
    return f"{_number_of(backlog.held, 'job', 'jobs')} held: paused, or no worker takes {them}"


def _at_hand(backlog: Backlog) -> str:
    return f": {backlog.total:,} at hand" if backlog.total else ""


def _end(backlog: Backlog) -> str:
    if backlog.gone_in_s is None or backlog.gone_in_s >= _SOON_S:
        return ""
    return f", gone in {in_words(max(1.0, backlog.gone_in_s))}"


def _counted(backlog: Backlog) -> str:
    return f"at least {backlog.total:,}" if backlog.is_least else f"{backlog.total:,}"


def _number_of(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _rate(per_s: float) -> str:
    """Return a rate per second, or per minute where that is easier to read."""
    return f"{per_s:,.0f}/s" if per_s >= 9.5 else f"{per_s * 60:,.0f}/min"
