"""Every rule of the alerts: its thresholds, its sentences, and what to do.

`docs/alerts.md` has a row and `docs/runbooks.md` a section for each. The console, `ingest doctor`
and the channels take their sentences from here. The file is long because a rule's words are
half a page, and they are read together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A number that decides whether a rule fires."""

    name: str
    """As the configuration names it; it ends in the unit."""
    default: float | None
    """None: the rule is off until it is set."""
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A kind of alert. It can fire for several subjects: processors, sources, folders."""

    slug: str
    title: str
    """What several of its alerts are called in one message."""
    urgent: bool
    """Whether somebody should come now; otherwise today. Quiet hours hold back only the latter."""
    for_s: float
    """How long the condition must hold before the alert fires."""
    recover_for_s: float = 120
    """How long it must be over before the alert recovers."""
    thresholds: tuple[Threshold, ...] = ()
    condition: str
    """When it fires, for the documents."""
    fired: str
    """The sentence of an alert; `{subject}` and other fields are replaced."""
    recovered: str
    """The sentence of its recovery; `{subject}` is replaced."""
    advice: str
    """What to do first, in the imperative."""
    href: str
    """The console's page that says more."""
    grows: bool = False
    """Whether it is told again when its value has grown."""
    unknown_for_s: float = 3600
    """How long an alert stays of which the facts say nothing. Then it ends, and no recovery is
    told."""


def _seconds(default: float, meaning: str) -> Threshold:
    return Threshold(name="seconds", default=default, meaning=meaning)


def _window(default: float) -> Threshold:
    return Threshold(name="window_s", default=default, meaning="the span that is counted")


DEAD_LETTERS = Rule(
    slug="dead_letters",
    title="new dead letters",
    urgent=False,
    for_s=0,
    recover_for_s=0,
    thresholds=(
        Threshold(name="more_than", default=0, meaning="so many of a processor are tolerated"),
    ),
    condition="A processor has dead letters; told again whenever there are more than were told.",
    fired="{subject} has {jobs}: every attempt failed.",
    recovered="{subject} has no more dead letters than are tolerated.",
    advice="Correct the cause that the failures page shows, then replay or discard them.",
    href="/failures",
    grows=True,
)
DEAD_LETTERS_MANY = Rule(
    slug="dead_letters_many",
    title="many dead letters",
    urgent=True,
    for_s=0,
    thresholds=(
        Threshold(name="more_than", default=100, meaning="so many of all processors are tolerated"),
    ),
    condition="All processors together have more than 100 dead letters.",
    fired="To be replayed or discarded: {jobs}.",
    recovered="Few dead letters are left.",
    advice="Correct the cause that the failures page shows, then replay or discard them.",
    href="/failures",
)
FAILURE_BACK = Rule(
    slug="failure_back",
    title="failures that are back",
    urgent=False,
    for_s=0,
    recover_for_s=0,
    condition="A failure that was resolved has happened again, or a muted one as often as it was"
    " muted for, and nobody has acknowledged, resolved or muted it since.",
    fired="{subject} is back: {why}, and has failed again.",
    recovered="Somebody looks after {subject}, or it is resolved or muted.",
    advice="Look at its page: releases, events and notes; then acknowledge, resolve or mute it.",
    href="/failures",
)
BACKLOG_OLD = Rule(
    slug="backlog_old",
    title="old backlog",
    urgent=True,
    for_s=60,
    thresholds=(_seconds(60, "how old the oldest delivery may be that no worker has admitted"),),
    condition="The oldest delivery that no worker has admitted is older than a minute.",
    fired="The oldest delivery that no worker has admitted is {age} old; waiting: {deliveries}.",
    recovered="Workers admit deliveries in time again.",
    advice="Look whether workers run and keep up; start more.",
    href="/",
)
JOBS_OLD = Rule(
    slug="jobs_old",
    title="old jobs",
    urgent=False,
    for_s=300,
    thresholds=(_seconds(3600, "how old the event of an unfinished job may be"),),
    condition="A processor has an unfinished job whose event is older than an hour. Parked jobs"
    " and replays do not count.",
    fired="A job of {subject} is unfinished {age} after its event was received.",
    recovered="{subject} has no old job any more.",
    advice="Look at the errors of the processor, and whether it keeps up.",
    href="/processors",
)
SCHEDULE_OVERDUE = Rule(
    slug="schedule_overdue",
    title="overdue runs",
    urgent=False,
    for_s=60,
    thresholds=(_seconds(900, "how long a run may be overdue"),),
    condition="A periodic processor has been due for 15 minutes and no run has begun. Those that"
    " are paused, or that no live worker has, do not count.",
    fired="{subject} was due {age} ago, and no run has begun since.",
    recovered="{subject} runs by its schedule again.",
    advice="Look at its last run: the next waits until that one has ended.",
    href="/processors",
)
PROCESSOR_FAILS = Rule(
    slug="processor_fails",
    title="failing processors",
    urgent=True,
    for_s=60,
    thresholds=(
        Threshold(name="share", default=0.2, meaning="the share of attempts that may fail, 0 to 1"),
        Threshold(name="at_least", default=10, meaning="failed attempts from which on it fires"),
        _window(600),
    ),
    condition="More than 20 % of a processor's attempts of the last 10 minutes failed, and at"
    " least 10 did.",
    fired="{subject} fails: {failed} of its {attempts} of the last {window} ended in an error.",
    recovered="{subject} works again.",
    advice="Look at its errors on the failures page; pause it if each attempt does harm.",
    href="/failures",
)
SIGNATURES_REFUSED = Rule(
    slug="signatures_refused",
    title="refused signatures",
    urgent=True,
    for_s=120,
    thresholds=(
        Threshold(name="share", default=0.05, meaning="the share of requests that may be refused"),
        Threshold(name="at_least", default=10, meaning="refusals from which on it fires"),
        _window(600),
    ),
    condition="More than 5 % of the requests of the last 10 minutes had a wrong signature, a wrong"
    " body hash or a time outside the window, and at least 10 had; for each of these reasons.",
    fired="{refused} in the last {window} for {subject}, of {requests}.",
    recovered="Hardly any request is refused for {subject} any more.",
    advice="A secret was changed on one side, or a clock is off: the page of refused requests says"
    " the likely cause.",
    href="/refusals",
)
SOURCE_QUIET = Rule(
    slug="source_quiet",
    title="quiet sources",
    urgent=True,
    for_s=60,
    recover_for_s=0,
    thresholds=(
        _window(1800),
        Threshold(name="usually", default=20, meaning="deliveries in that hour that make it busy"),
        Threshold(name="days", default=4, meaning="so many of the 7 days before must be busy"),
    ),
    condition="A source delivered nothing for 30 minutes, and is usually busy then. It is if it"
    " delivered at least 20 times in the same clock hour (UTC; that of the middle of the 30"
    " minutes) on at least 4 of the 7 days before, the day a week before among them.",
    fired="Nothing has come from {subject} for {window}. On {days} of the last 7 days it"
    " delivered {usually} times or more in this hour.",
    recovered="{subject} delivers again.",
    advice="Look at the sender's dashboard: is the webhook switched off, or our address"
    " unreachable? What it did not send can be recovered from some senders.",
    href="/sources",
    unknown_for_s=604_800,  # a week: after that it is compared with its own silence
)
NO_RECEIVER = Rule(
    slug="no_receiver",
    title="no receiver",
    urgent=True,
    for_s=40,
    recover_for_s=0,
    condition="No receiver has reported for 20 seconds.",
    fired="No receiver is alive: senders get no answer.",
    recovered="A receiver is alive again.",
    advice="Start `ingest serve`, then recover what senders do not send again.",
    href="/",
)
NO_WORKER = Rule(
    slug="no_worker",
    title="no worker",
    urgent=True,
    for_s=40,
    recover_for_s=0,
    condition="No worker has reported for 20 seconds.",
    fired="No worker is alive: events are stored, and nobody processes them.",
    recovered="A worker is alive again.",
    advice="Start `ingest worker`.",
    href="/",
)
NO_RELAY = Rule(
    slug="no_relay",
    title="no relay",
    urgent=True,
    for_s=40,
    recover_for_s=0,
    condition="No relay has reported for 20 seconds. The console finds that out.",
    fired="No relay is alive: retries and lost messages wait.",
    recovered="A relay is alive again.",
    advice="Start `ingest relay`.",
    href="/",
)
PRIVILEGES_MISSING = Rule(
    slug="privileges_missing",
    title="missing privileges",
    urgent=True,
    for_s=0,
    recover_for_s=0,
    condition="The database role of a kind of process lacks a privilege that it needs.",
    fired="The database role of the {subject} {lacks}.",
    recovered="The database role of the {subject} has its privileges.",
    advice="Grant it to the role of that process: docs/database.md, Roles.",
    href="/",
)
PARTITIONS_SHORT = Rule(
    slug="partitions_short",
    title="missing partitions",
    urgent=True,
    for_s=600,
    recover_for_s=0,
    thresholds=(
        Threshold(name="days", default=3, meaning="days after today that must have a partition"),
    ),
    condition="Fewer than 3 days after today have a partition.",
    fired="Only {days} after today have a partition for deliveries.",
    recovered="The next days have their partitions.",
    advice="Look for `upkeep_waits` in the relay's log: a dump or an open transaction holds a lock,"
    " or the relay's role is not the owner.",
    href="/",
)
DISK_LOW = Rule(
    slug="disk_low",
    title="full disks",
    urgent=True,
    for_s=60,
    thresholds=(
        Threshold(name="free_share", default=0.1, meaning="the share that must be free, 0 to 1"),
        Threshold(name="free_bytes", default=256 * MIB, meaning="the bytes that must be free"),
    ),
    condition="A disk has less than 10 % or 256 MiB left. Looked at: the data folder, and"
    " PostgreSQL's where it is on the machine of the relay and the role may know it.",
    fired="{subject} has {free} left, {share} of its disk.",
    recovered="{subject} has room again.",
    advice="Make room, or let bodies go sooner (INGEST_BODY_RETENTION_DAYS).",
    href="/",
)
DATABASE_LARGE = Rule(
    slug="database_large",
    title="large database",
    urgent=False,
    for_s=0,
    thresholds=(
        Threshold(name="bytes", default=None, meaning="the size that the database may have"),
    ),
    condition="The database is larger than `bytes`: for servers whose disk nobody here sees.",
    fired="The database has {size}, more than {bytes}.",
    recovered="The database has its usual size again.",
    advice="Make room, or let bodies go sooner (INGEST_BODY_RETENTION_DAYS).",
    href="/",
)
OLD_KEY_USED = Rule(
    slug="old_key_used",
    title="old keys in use",
    urgent=False,
    for_s=86_400,
    recover_for_s=3600,
    thresholds=(_window(3600),),
    condition="For a day, a source has signed with a key that is not its newest.",
    fired="{source} still signs with its older key {key}: {deliveries} in the last {window}.",
    recovered="{subject} was used no more.",
    advice="Set the new secret at the sender; do not retire the old one yet.",
    href="/sources",
    unknown_for_s=86_400,  # a day: many sources deliver nothing at night
)
JOBS_PARKED = Rule(
    slug="jobs_parked",
    title="parked jobs",
    urgent=True,
    for_s=120,
    recover_for_s=0,
    condition="Jobs are parked because no worker has their processor or takes their queue.",
    fired="Parked: {jobs} of {subject}, {why}.",
    recovered="{subject} has no parked jobs any more.",
    advice="Start a worker that has the processor and takes the queue. The jobs then run by"
    " themselves.",
    href="/processors",
)
PROCESSOR_PAUSED = Rule(
    slug="processor_paused",
    title="paused processors",
    urgent=False,
    for_s=3600,
    recover_for_s=0,
    condition="A processor has been paused for an hour.",
    fired="{subject} is paused: its jobs wait.",
    recovered="{subject} is resumed.",
    advice="Resume it on the page of processors when the reason is over.",
    href="/processors",
)
BREAKER_OPEN = Rule(
    slug="breaker_open",
    title="open breakers",
    urgent=False,
    for_s=60,
    recover_for_s=0,
    condition="The breaker of a processor has been open for a minute: its target is down.",
    fired="The target of {subject} is down, and its jobs wait: its breaker is open since {since},"
    " after {failures} in a row ({error}).",
    recovered="The target of {subject} is back, or its breaker was closed: its jobs run.",
    advice="Look what the processor calls. Nothing is lost and no attempt is spent but by the"
    " probes; the jobs run by themselves once a probe succeeds.",
    href="/processors",
)
POSSIBLE_LOSSES = Rule(
    slug="possible_losses",
    title="possible losses",
    urgent=True,
    for_s=0,
    recover_for_s=0,
    condition="A request with a verified signature was answered 5xx in the last 3 days, its sender"
    " does not send it again, and nobody has recovered it; told again whenever there are more than"
    " were told.",
    fired="{sentence}",
    recovered="Nothing of {subject} is known to be missing any more.",
    advice="Recover it from the sender, or look there for what is missing.",
    href="/refusals",
    grows=True,
)
REDIS_AWAY = Rule(
    slug="redis_away",
    title="Redis away",
    urgent=False,
    for_s=60,
    condition="Redis does not answer the process that evaluates.",
    fired="Redis does not answer: work starts a little late.",
    recovered="Redis answers again.",
    advice="Start Redis, or correct INGEST_REDIS_URL (`ingest doctor`). Nothing is lost.",
    href="/",
)
CHANNEL_FAILS = Rule(
    slug="channel_fails",
    title="failing channels",
    urgent=False,
    for_s=0,
    recover_for_s=0,
    thresholds=(_seconds(600, "how long a message may wait for its channel"),),
    condition="A message has waited for its channel for 10 minutes. Other channels are told.",
    fired="The channel {subject} takes no messages; the oldest has waited for {age}.",
    recovered="The channel {subject} takes messages again.",
    advice="Test it: `ingest alerts test` says what comes back.",
    href="/alerts",
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.slug: rule
        for rule in (
            *(NO_RECEIVER, NO_WORKER, NO_RELAY, PRIVILEGES_MISSING),
            *(BACKLOG_OLD, JOBS_OLD, SCHEDULE_OVERDUE, PROCESSOR_FAILS),
            *(DEAD_LETTERS, DEAD_LETTERS_MANY, FAILURE_BACK),
            *(JOBS_PARKED, PROCESSOR_PAUSED, BREAKER_OPEN, POSSIBLE_LOSSES, SIGNATURES_REFUSED),
            SOURCE_QUIET,
            *(OLD_KEY_USED, PARTITIONS_SHORT, DISK_LOW, DATABASE_LARGE, REDIS_AWAY, CHANNEL_FAILS),
        )
    }
)
"""All rules by slug, in the order in which people read them."""

NO_PROCESS: Mapping[str, Rule] = MappingProxyType(
    {"receiver": NO_RECEIVER, "worker": NO_WORKER, "relay": NO_RELAY}
)
"""The rule about each kind of process without which work stops."""


def default(rule: Rule, name: str) -> float:
    """Return the default of a threshold that has one."""
    value = next(threshold.default for threshold in rule.thresholds if threshold.name == name)
    assert value is not None
    return value
