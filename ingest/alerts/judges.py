"""What each rule finds in the facts. Pure functions, one a rule."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from ingest.alerts import catalogue
from ingest.alerts.catalogue import NO_PROCESS, RULES, Rule
from ingest.alerts.configuration import Policy
from ingest.alerts.facts import Facts, sources_of
from ingest.recovery import sentences
from ingest.store.reports.alert_facts import DAYS_COMPARED
from ingest.store.reports.key_use import label

SIGNED_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "signature_mismatch": "a wrong signature",
        "body_hash_mismatch": "a wrong body hash",
        "timestamp_outside_window": "a time outside the window",
    }
)
"""The reasons for which a request is refused that has a signature."""
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule's condition holds for a subject."""

    rule: str
    subject: str
    value: float
    """What is compared with the threshold."""
    sentence: str


_Judge = Callable[[Facts, Policy], Iterator[Finding]]


def findings(facts: Facts, policies: Mapping[str, Policy]) -> list[Finding]:
    """Return every condition that holds, of the rules that are on."""
    held: list[Finding] = []
    for slug, policy in policies.items():
        if policy.enabled:
            held += sorted(_JUDGES[slug](facts, policy), key=lambda finding: finding.subject)
    return held


def _found(rule: Rule, value: float, subject: str = "", **fields: str) -> Finding:
    sentence = rule.fired.format(subject=subject, **fields)
    return Finding(rule=rule.slug, subject=subject, value=value, sentence=sentence)


def _no_process(kind: str) -> _Judge:
    def judge(facts: Facts, _policy: Policy) -> Iterator[Finding]:
        if not facts.has_alive(kind) and not facts.is_starting:
            yield _found(NO_PROCESS[kind], 0)

    return judge


def _privileges_missing(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    lacks: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for process in facts.processes:  # those of one kind may have different roles
        if process.alive:
            lacks[process.kind] |= dict.fromkeys(process.lacks)
    for kind, missing in lacks.items():
        if missing:
            yield _found(
                catalogue.PRIVILEGES_MISSING,
                len(missing),
                f"{kind}s",
                lacks="; ".join(missing),
            )


def _backlog_old(facts: Facts, policy: Policy) -> Iterator[Finding]:
    since = facts.state.unadmitted_since
    age = (facts.now - since).total_seconds() if since else 0
    if age > policy["seconds"]:
        waiting = _number(facts.state.unadmitted, "delivery", "deliveries")
        yield _found(catalogue.BACKLOG_OLD, age, age=_span(age), deliveries=waiting)


def _jobs_old(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for lane in facts.state.lanes:
        age = (facts.now - lane.oldest_at).total_seconds() if lane.oldest_at else 0
        if age > policy["seconds"]:
            subject = f"{lane.processor} in {lane.queue}"
            yield _found(catalogue.JOBS_OLD, age, subject, age=_span(age))


def _schedule_overdue(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for processor, due_at in facts.overdue.items():
        age = (facts.now - due_at).total_seconds()
        if age > policy["seconds"]:
            yield _found(catalogue.SCHEDULE_OVERDUE, age, processor, age=_span(age))


def _processor_fails(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for processor, (failed, succeeded) in facts.attempts.items():
        attempts = failed + succeeded
        if failed >= max(1, policy["at_least"]) and failed > policy["share"] * attempts:
            yield _found(
                catalogue.PROCESSOR_FAILS,
                failed / attempts,
                processor,
                failed=f"{failed:,}",
                attempts=_number(attempts, "attempt"),
                window=_span(policy["window_s"]),
            )


def _dead_letters(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for processor, dead in facts.state.dead.items():
        if dead > policy["more_than"]:
            jobs = _number(dead, "dead letter")
            yield _found(catalogue.DEAD_LETTERS, dead, processor, jobs=jobs)


def _dead_letters_many(facts: Facts, policy: Policy) -> Iterator[Finding]:
    dead = sum(facts.state.dead.values())
    if dead > policy["more_than"]:
        yield _found(catalogue.DEAD_LETTERS_MANY, dead, jobs=_number(dead, "dead letter"))


def _failure_back(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    for failure in facts.returned_failures:
        yield _found(
            catalogue.FAILURE_BACK,
            failure.id,
            f"failure {failure.id} ({failure.error_type} of {failure.processor})",
            why="it was muted until now" if failure.resolved_at is None else "it was resolved",
        )


def _jobs_parked(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    for (processor, queue, reason), parked in facts.state.parked.items():
        if reason not in ("paused", "breaker_open"):
            why = "no live worker has it" if reason == _UNKNOWN else "no worker takes the queue"
            yield _found(
                catalogue.JOBS_PARKED,
                parked,
                f"{processor} in {queue}",
                jobs=_number(parked, "job"),
                why=why,
            )


def _processor_paused(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    parked: Counter[str] = Counter()
    for (processor, _queue, reason), count in facts.state.parked.items():
        if reason == "paused":
            parked[processor] += count
    for processor, count in parked.items():
        yield _found(catalogue.PROCESSOR_PAUSED, count, processor)


def _breaker_open(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    for processor, breaker in facts.open_breakers.items():
        if breaker.opened_at is not None:
            yield _found(
                catalogue.BREAKER_OPEN,
                breaker.failures,
                processor,
                failures=_number(breaker.failures, "failure"),
                error=breaker.error_type or "an error",
                since=f"{breaker.opened_at:%H:%M} UTC",
            )


def _possible_losses(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    for loss in facts.losses:
        (sentence,) = sentences.of_losses([loss], now=facts.now)
        yield _found(catalogue.POSSIBLE_LOSSES, loss.deliveries, loss.source, sentence=sentence)


def _signatures_refused(facts: Facts, policy: Policy) -> Iterator[Finding]:
    requests = facts.stored + sum(facts.refused.get(reason, 0) for reason in SIGNED_REASONS)
    for reason, words in SIGNED_REASONS.items():
        refused = facts.refused.get(reason, 0)
        if refused >= max(1, policy["at_least"]) and refused > policy["share"] * requests:
            yield _found(
                catalogue.SIGNATURES_REFUSED,
                refused / requests,
                words,
                refused=_number(refused, "request was refused", "requests were refused"),
                window=_span(policy["window_s"]),
                requests=f"{requests:,}",
            )


def _source_quiet(facts: Facts, policy: Policy) -> Iterator[Finding]:
    busy_days: defaultdict[str, set[int]] = defaultdict(set)
    for hour in facts.past_hours:
        if hour.deliveries >= max(1, policy["usually"]) and facts.may_receive(hour.source):
            busy_days[hour.source].add(hour.days_ago)
    delivering = sources_of(facts.recent)
    for source, days in busy_days.items():
        if source in delivering or len(days) < policy["days"] or DAYS_COMPARED not in days:
            continue
        yield _found(
            catalogue.SOURCE_QUIET,
            0,
            source,
            window=_span(policy["window_s"]),
            days=str(len(days)),
            usually=f"{policy['usually']:g}",
        )


def _old_key_used(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for source, keys in facts.configured_keys.items():
        for key in keys[1:]:
            used = facts.keys.get(label(source, key), 0)
            if used:
                yield _found(
                    catalogue.OLD_KEY_USED,
                    used,
                    label(source, key),
                    source=source,
                    key=key,
                    deliveries=_number(used, "delivery", "deliveries"),
                    window=_span(policy["window_s"]),
                )


def _partitions_short(facts: Facts, policy: Policy) -> Iterator[Finding]:
    if facts.partition_days < policy["days"]:
        days = _number(max(0, facts.partition_days), "day")
        yield _found(catalogue.PARTITIONS_SHORT, facts.partition_days, days=days)


def _disk_low(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for path, disk in facts.disks.items():
        if disk.free_bytes < policy["free_bytes"] or disk.free_share < policy["free_share"]:
            yield _found(
                catalogue.DISK_LOW,
                disk.free_share,
                f"{facts.host}:{path}",
                free=_size(disk.free_bytes),
                share=f"{disk.free_share:.0%}",
            )


def _database_large(facts: Facts, policy: Policy) -> Iterator[Finding]:
    size = facts.database_bytes or 0
    if size > policy["bytes"]:
        limit = _size(int(policy["bytes"]))
        yield _found(catalogue.DATABASE_LARGE, size, size=_size(size), bytes=limit)


def _redis_away(facts: Facts, _policy: Policy) -> Iterator[Finding]:
    if not facts.redis_answers:
        yield _found(catalogue.REDIS_AWAY, 0)


def _channel_fails(facts: Facts, policy: Policy) -> Iterator[Finding]:
    for channel, made_at in facts.waiting_channels.items():
        age = (facts.now - made_at).total_seconds()
        if age > policy["seconds"]:
            yield _found(catalogue.CHANNEL_FAILS, age, channel, age=_span(age))


_JUDGES: Mapping[str, _Judge] = MappingProxyType(
    {
        **{rule.slug: _no_process(kind) for kind, rule in NO_PROCESS.items()},
        "privileges_missing": _privileges_missing,
        "backlog_old": _backlog_old,
        "jobs_old": _jobs_old,
        "schedule_overdue": _schedule_overdue,
        "processor_fails": _processor_fails,
        "dead_letters": _dead_letters,
        "dead_letters_many": _dead_letters_many,
        "failure_back": _failure_back,
        "jobs_parked": _jobs_parked,
        "processor_paused": _processor_paused,
        "breaker_open": _breaker_open,
        "possible_losses": _possible_losses,
        "signatures_refused": _signatures_refused,
        "source_quiet": _source_quiet,
        "old_key_used": _old_key_used,
        "partitions_short": _partitions_short,
        "disk_low": _disk_low,
        "database_large": _database_large,
        "redis_away": _redis_away,
        "channel_fails": _channel_fails,
    }
)
assert _JUDGES.keys() == RULES.keys()


def _number(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _span(seconds: float) -> str:
    """Return a span in its largest whole unit, rounded down: `40 s`, `3 min`, `5 h`, `2 d`."""
    age = timedelta(seconds=seconds)
    for unit, length in (("d", timedelta(days=2)), ("h", timedelta(hours=2))):
        if age >= length:
            return f"{age // (length / 2)} {unit}"
    return (
        f"{age // timedelta(minutes=1)} min" if age >= timedelta(minutes=2) else f"{seconds:.0f} s"
    )


def _size(count: int) -> str:
    return f"{count / 1024**3:,.1f} GiB" if count >= 1024**3 else f"{count / 1024**2:,.0f} MiB"
