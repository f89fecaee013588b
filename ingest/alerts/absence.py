"""What it means that a rule finds nothing of a subject of which it did. Pure functions.

Only what the facts say is told as a recovery: a source does not deliver again because it is not
usually busy at this hour, nor has a disk room again because its machine does not evaluate.
"""

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ingest.alerts.catalogue import NO_PROCESS, RULES
from ingest.alerts.facts import Facts, sources_of
from ingest.store.failures.records import LISTED
from ingest.store.reports.gauges import EXAMINED


class Absence(enum.Enum):
    """Why a rule finds nothing of a subject."""

    OVER = enum.auto()
    """Its condition does not hold."""
    UNKNOWN = enum.auto()
    """The facts say nothing of it."""
    GONE = enum.auto()
    """There is no such subject any more."""


_Says = Callable[[Facts, str], bool]
"""Returns whether the facts say something of a subject."""


def explain(facts: Facts, rule: str, subject: str) -> Absence:
    """Return why a rule finds nothing of a subject."""
    if _IS_OVER.get(rule, _always)(facts, subject):
        return Absence.OVER
    return Absence.UNKNOWN if _EXISTS.get(rule, _always)(facts, subject) else Absence.GONE


def _always(_facts: Facts, _subject: str) -> bool:
    return True


def _is_alive(kind: str) -> _Says:
    return lambda facts, _subject: facts.has_alive(kind)


def _one_reports(facts: Facts, subject: str) -> bool:
    return any(f"{process.kind}s" == subject for process in facts.processes if process.alive)


def _is_not_parked(facts: Facts, subject: str) -> bool:
    return all(f"{processor} in {queue}" != subject for processor, queue, _ in facts.state.parked)


def _is_among_counted(facts: Facts, subject: str) -> bool:
    """An old job may be due behind all those that were looked at."""
    queue = subject.rpartition(" in ")[2]
    return _is_not_parked(facts, subject) and facts.state.counts_all_of(queue)


def _is_not_late(facts: Facts, subject: str) -> bool:
    """Without a finding, a schedule that is overdue is so for a little while only."""
    is_coming = subject in facts.due and facts.due[subject] > facts.now
    return is_coming or subject in facts.overdue


def _all_dead_are_counted(facts: Facts, _subject: str) -> bool:
    return sum(facts.state.dead.values()) < EXAMINED


def _all_returned_are_listed(facts: Facts, _subject: str) -> bool:
    return len(facts.returned_failures) < LISTED


def _is_periodic(facts: Facts, subject: str) -> bool:
    return subject in facts.due


def _has_succeeded(facts: Facts, subject: str) -> bool:
    return subject in facts.succeeded


def _is_not_paused(facts: Facts, subject: str) -> bool:
    return subject not in facts.paused


def _is_recovered(facts: Facts, subject: str) -> bool:
    return subject not in facts.unrecovered


def _some_are_stored(facts: Facts, _subject: str) -> bool:
    return facts.stored > 0


def _delivers(facts: Facts, subject: str) -> bool:
    return subject in sources_of(facts.recent)


def _may_be_received(facts: Facts, subject: str) -> bool:
    return facts.may_receive(subject)


def _delivers_with_others(facts: Facts, subject: str) -> bool:
    source = subject.partition(" ")[0]
    return source in sources_of(facts.keys) and _is_older_key(facts, subject)


def _may_be_older_key(facts: Facts, subject: str) -> bool:
    return _is_older_key(facts, subject) or not facts.has_secrets


def _is_older_key(facts: Facts, subject: str) -> bool:
    source, _, key = subject.partition(" ")
    return key in facts.configured_keys.get(source, ())[1:]


def _is_seen(facts: Facts, subject: str) -> bool:
    return subject.removeprefix(f"{facts.host}:") in facts.disks


def _took_last(facts: Facts, subject: str) -> bool:
    return subject in facts.taking_channels


def _is_channel(facts: Facts, subject: str) -> bool:
    return subject in facts.channels


_IS_OVER: Mapping[str, _Says] = MappingProxyType(
    {
        **{rule.slug: _is_alive(kind) for kind, rule in NO_PROCESS.items()},
        "privileges_missing": _one_reports,
        "jobs_old": _is_among_counted,
        "schedule_overdue": _is_not_late,
        "processor_fails": _has_succeeded,
        "dead_letters": _all_dead_are_counted,
        "failure_back": _all_returned_are_listed,
        "jobs_parked": _is_not_parked,
        "processor_paused": _is_not_paused,
        "possible_losses": _is_recovered,
        "signatures_refused": _some_are_stored,
        "source_quiet": _delivers,
        "old_key_used": _delivers_with_others,
        "disk_low": _is_seen,
        "channel_fails": _took_last,
    }
)
"""What a recovery needs too, of each rule that may find nothing though its condition holds."""
_EXISTS: Mapping[str, _Says] = MappingProxyType(
    {
        "schedule_overdue": _is_periodic,
        "source_quiet": _may_be_received,
        "old_key_used": _may_be_older_key,
        "channel_fails": _is_channel,
    }
)
"""Whether a subject is there still, of each rule that can know it."""
assert _EXISTS.keys() <= _IS_OVER.keys() <= RULES.keys()
