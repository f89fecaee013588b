"""The whole schema: `metadata.create_all` makes it. A test holds that the migrations make the same.

The file is long because the schema has one home. Only the SQL of its functions and triggers stands
apart, in `ingest.store.triggers`.

A column that refers to a row is named after that row (`jobs.event` holds an `events.id`). The hot
tables have no foreign keys: checking each inserted row costs more than inserting it. One statement
writes a row and the rows that refer to it, and retention (ingest.store.retention) removes them
together. Partitions of deliveries are dropped by day, and the ledger outlives them.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ingest.store import triggers
from ingest.store.address import SCHEMA

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    },
)

Timestamp = DateTime(timezone=True)

# One authenticated request exactly as received. Append-only, a partition a day of ids (ingest.ids).
# A request that holds several events has a row as it came, and a row for each of its elements: the
# body that the sender would have sent with that event alone. Only the elements become events.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    Column("key_id", Text, nullable=False, comment="which secret matched"),
    Column("headers", JSONB, nullable=False, comment="[[name, value], …], those worth keeping"),
    Column("body", LargeBinary, comment="null: it was erased"),
    Column("rejected", Text, comment="why it was answered 400; null: accepted"),
    Column("part_of", Uuid, comment="an element: the delivery that it came in"),
    Column("body_key", Text, comment="what encrypts the body; null: nothing"),
    Index("deliveries_rejected", "id", postgresql_where=text("rejected IS NOT NULL")),
    postgresql_partition_by="RANGE (id)",
)

# Deliveries that no worker has admitted yet, and events to be admitted again. The relay reads this
# table instead of searching the deliveries. A row is inserted with its delivery; admit deletes it.
unadmitted = Table(
    "unadmitted",
    metadata,
    Column("delivery", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    Column("queue", Text, nullable=False),
    Column("hint_at", Timestamp, nullable=False, comment="when the relay dispatches it (again)"),
    Column("processor", Text, comment="make a job for this processor only"),
    Column("replay", BigInteger),
    Index("unadmitted_due", "queue", "hint_at"),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
)

# The ledger that dedupes: a row an occurrence, with the id of its first delivery. Insert-only, but
# for retention and for an erased event: its fingerprint is empty, and a digest replaces an id that
# names a person.
events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False, comment="the sender's name for the occurrence"),
    Column("type", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    UniqueConstraint("source", "event_id"),
    Index("events_type_id", "type", "id"),
)

# The events that retention has removed: what admission needs to know their late duplicates.
past_events = Table(
    "past_events",
    metadata,
    Column(
        "digest",
        LargeBinary,
        primary_key=True,
        comment="16 bytes, of the source and the sender's id",
    ),
    Column("fingerprint", LargeBinary, nullable=False, comment="its first 8 bytes"),
    Column("event", Uuid, nullable=False, comment="the id that it had"),
    Column("day", Date, nullable=False, comment="of its receipt, in UTC"),
    Index("past_events_day", "day"),
)

# Further deliveries of an event, also of one that was removed. Insert-only, but for retention.
duplicates = Table(
    "duplicates",
    metadata,
    Column("delivery", Uuid, primary_key=True),
    Column("event", Uuid, nullable=False, index=True),
    Column("received_at", Timestamp, nullable=False),
    Column("conflict", Boolean, nullable=False, comment="its content differs from the first's"),
    Index("duplicates_conflict", "event", postgresql_where=text("conflict")),
)

STATES = ("pending", "running", "retrying", "succeeded", "dead")
TRIGGERS = ("delivery", "retry", "rescue", "replay")
BULK_ACTIONS = ("replay", "discard")
BULK_STATUSES = ("running", "paused", "cancelled", "finished", "failed")
OUTCOMES = ("succeeded", "failed", "discarded", "snoozed", "timed_out", "lost", "released")
PARK_REASONS = ("unknown", "unconsumed")
MISSED_RULES = ("latest", "all", "none")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


# One event for one processor: the only mutable state. Every transition is in
# ingest.store.pipeline.jobs.
jobs = Table(
    "jobs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event", Uuid, nullable=False),
    Column("processor", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("trigger", Text, nullable=False, comment="why the current or next attempt runs"),
    Column("attempt", Integer, nullable=False, comment="number of the last attempt; fencing token"),
    Column("failures", SmallInteger, nullable=False, comment="attempts that count, since a replay"),
    Column("max_attempts", SmallInteger, nullable=False),
    Column(
        "next_attempt_at", Timestamp, comment="waiting: not before; infinity: behind one of its key"
    ),
    Column("hinted_until", Timestamp, comment="waiting: Redis is presumed to know until then"),
    Column("lease_until", Timestamp, comment="running: the claim ends"),
    Column(
        "due_at",
        Timestamp,
        Computed("greatest(next_attempt_at, hinted_until)", persisted=True),
        comment="waiting: when the relay dispatches it",
    ),
    Column("started_at", Timestamp),
    Column("finished_at", Timestamp),
    Column("worker", Text, comment="who ran or runs the last attempt"),
    Column("replay", BigInteger, comment="the last replay that put it back, or discard"),
    Column("discarded_at", Timestamp, comment="dead, and an operator wants it no more"),
    Column("requeued_from", JSONB, comment="what it was before the replay `by` put it back"),
    UniqueConstraint("event", "processor"),
    _one_of("state", STATES),
    _one_of("trigger", TRIGGERS),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint(
        "(state IN ('pending', 'retrying')) = (next_attempt_at IS NOT NULL)", name="waiting"
    ),
    CheckConstraint(
        "(state IN ('succeeded', 'dead')) = (finished_at IS NOT NULL)", name="finished"
    ),
    CheckConstraint("failures BETWEEN 0 AND attempt", name="failures"),
    Index("jobs_due", "queue", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("jobs_leased", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    Index("jobs_dead", "event", postgresql_where=text("state = 'dead' AND discarded_at IS NULL")),
    Index("jobs_discarded", "event", postgresql_where=text("discarded_at IS NOT NULL")),
    # Only code of the release before reads jobs_parked; a later release may drop it.
    Index("jobs_parked", "processor", "queue", postgresql_where=text("due_at = 'infinity'")),
    Index("jobs_held", "processor", "queue", postgresql_where=text("hinted_until = 'infinity'")),
    Index("jobs_behind", "processor", postgresql_where=text("next_attempt_at = 'infinity'")),
    Index(
        "jobs_replayed",
        "replay",
        "state",
        "event",
        postgresql_where=text("replay IS NOT NULL"),
        postgresql_include=["id", "discarded_at"],
    ),
    postgresql_with={
        "fillfactor": 70,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_threshold": 1000,
    },
)

# Ended attempts, except the success of a job that has succeeded. That one is on the job's row and
# moves here when a replay requeues the job, so an event that succeeds at once costs no second row.
attempts = Table(
    "attempts",
    metadata,
    Column("job", BigInteger, ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("trigger", Text, nullable=False),
    Column("worker", Text),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("traceback", Text),
    Column("replay", BigInteger),
    Column("place", Text, comment="module and function that the error was raised in"),
    Column("release", Text, comment="of the worker's application (INGEST_RELEASE)"),
    _one_of("trigger", TRIGGERS),
    _one_of("outcome", OUTCOMES),
)

# Failed attempts that are not counted in their group of failures yet. A row is inserted with its
# attempt. The relay takes rows by the thousand, so that workers never wait for the row of a group.
ungrouped = Table(
    "ungrouped",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="of the attempt"),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
)

FAILURE_STATES = ("open", "acknowledged", "resolved", "muted")

# What fails in one way: a processor, the class of the error, and the place that it was raised in.
failure_groups = Table(
    "failure_groups",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("processor", Text, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("place", Text, nullable=False, comment="empty: there is no traceback"),
    Column("state", Text, nullable=False, server_default="open"),
    Column("first_seen", Timestamp, nullable=False),
    Column("last_seen", Timestamp, nullable=False),
    Column("attempts", BigInteger, nullable=False, comment="that have failed so, ever"),
    Column("job", BigInteger, nullable=False, comment="of the newest of these attempts"),
    Column("number", Integer, nullable=False, comment="of that attempt"),
    Column("assigned_to", Text),
    Column("changed_at", Timestamp, comment="the state was changed"),
    Column("changed_by", Text, comment="null: by itself"),
    Column("muted_until", Timestamp),
    Column("muted_to", BigInteger, comment="the number of attempts at which it is open again"),
    Column("resolved_at", Timestamp, comment="the last time, if it was not muted since"),
    Column("resolved_in", Text, comment="the release that mends it; null: it is mended"),
    Column(
        "resolves_itself",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="it is resolved once none of its jobs fails or is to be repeated",
    ),
    Column("reopened_at", Timestamp, comment="it came back by itself, and nobody has reacted"),
    UniqueConstraint("processor", "error_type", "place"),
    _one_of("state", FAILURE_STATES),
    Index("failure_groups_by_state", "state", "last_seen"),
    postgresql_with={"fillfactor": 70},
)

# How many attempts failed in each five minutes of the last days.
failure_counts = Table(
    "failure_counts",
    metadata,
    Column("failure", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Timestamp, primary_key=True),
    Column("attempts", BigInteger, nullable=False),
    Index("failure_counts_at", "at"),
    postgresql_with={"fillfactor": 70},
)

# The releases of the workers that had a failure.
failure_releases = Table(
    "failure_releases",
    metadata,
    Column("failure", BigInteger, primary_key=True, autoincrement=False),
    Column("release", Text, primary_key=True),
    Column("first_seen", Timestamp, nullable=False),
    Column("last_seen", Timestamp, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 70},
)

# What operators wrote about a failure.
failure_notes = Table(
    "failure_notes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("failure", BigInteger, nullable=False, index=True),
    Column("at", Timestamp, nullable=False, server_default=func.now()),
    Column("by", Text, nullable=False),
    Column("text", Text, nullable=False),
)

# The jobs of processors with an order that have not ended: what is behind what. Event ids follow
# the receipt, so a job's place among those of its key is its event.
ordered_jobs = Table(
    "ordered_jobs",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("processor", Text, nullable=False),
    Column("event", Uuid, nullable=False, comment="its place"),
    Column("key", Uuid, comment="digest of the processor and the key; null: not read yet"),
    Column("placed", Boolean, nullable=False, comment="all that was received before is placed"),
    Index("ordered_jobs_line", "key", "event", postgresql_where=text("placed")),
    Index("ordered_jobs_unplaced", "processor", "event", postgresql_where=text("NOT placed")),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_threshold": 1000},
)

# The keys of which jobs run: one worker's run of consecutive jobs each, and `job` is its last. The
# primary key lets no two workers have a key.
keys_in_work = Table(
    "keys_in_work",
    metadata,
    Column("key", Uuid, primary_key=True),
    Column("job", BigInteger, nullable=False),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 1000},
)

# The limits of processors that declare any. All claims of such a processor lock its row, so that
# they are counted exactly.
limits = Table(
    "limits",
    metadata,
    Column("processor", Text, primary_key=True),
    Column("declared", Boolean, nullable=False, comment="false: its last release has no limits"),
    Column("limit_by", Text, comment="whose shares are equal; null: all have one"),
    Column("concurrency", Integer, comment="jobs at once, as declared; null: any number"),
    Column("rate", Text, comment="starts in a time, as declared; null: any number"),
    Column("key_concurrency", Integer),
    Column("key_rate", Text),
    Column("override", JSONB, comment="what an operator has set instead; a null lifts a limit"),
    Column("overridden_at", Timestamp),
    Column("overridden_by", Text),
    Column(
        "turn", BigInteger, nullable=False, server_default=text("0"), comment="of the last started"
    ),
    Column(
        "starts_at",
        ARRAY(Double),
        nullable=False,
        server_default=text("'{}'"),
        comment="recent starts, Unix time",
    ),
    Column("starts", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
    Column("pulled_at", Timestamp, comment="when a worker last took jobs"),
    postgresql_with={
        "fillfactor": 20,
        "autovacuum_vacuum_scale_factor": 0.0,
        "autovacuum_vacuum_threshold": 1000,
    },
)

# The jobs that wait for a limit, and those that run meanwhile.
limited_jobs = Table(
    "limited_jobs",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("processor", Text, nullable=False),
    Column("key", Uuid, nullable=False, comment="digest of the processor and the key"),
    Column("place", BigInteger, Identity(always=True), nullable=False),
    Column("claimed", Boolean, nullable=False, server_default=text("false")),
    Index("limited_jobs_line", "processor", "key", "place", postgresql_where=text("NOT claimed")),
    Index("limited_jobs_claimed", "processor", "key", postgresql_where=text("claimed")),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_threshold": 1000},
)

# The keys that jobs wait of, or have started of a while ago.
limited_keys = Table(
    "limited_keys",
    metadata,
    Column("processor", Text, primary_key=True),
    Column("key", Uuid, primary_key=True),
    Column("turn", BigInteger, nullable=False, comment="the lowest is next"),
    Column("waiting", Boolean, nullable=False, comment="jobs of it wait"),
    Column(
        "held_until", Timestamp, comment="its own limit; infinity: until a job ends; null: ready"
    ),
    Column("starts_at", ARRAY(Double), nullable=False, server_default=text("'{}'")),
    Column("starts", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
    Index(
        "limited_keys_ready",
        "processor",
        "turn",
        "key",
        postgresql_where=text("waiting AND held_until IS NULL"),
    ),
    Index(
        "limited_keys_held",
        "processor",
        "held_until",
        postgresql_where=text("held_until IS NOT NULL"),
    ),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_threshold": 1000},
)

# An operator's replay, or discard, of a selection: who, when, why and the progress.
replays = Table(
    "replays",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("requested_at", Timestamp, nullable=False, server_default=func.now()),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text),
    Column("selection", JSONB, nullable=False),
    Column(
        "jobs", BigInteger, nullable=False, server_default=text("0"), comment="put back to pending"
    ),
    Column(
        "events",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="to be admitted again",
    ),
    Column(
        "running",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="left alone: running",
    ),
    Column("finished_at", Timestamp),
    Column("action", Text, nullable=False, server_default="replay"),
    Column("status", Text, nullable=False, server_default="running"),
    Column(
        "background",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the console runs it, and goes on after a restart",
    ),
    Column("rate", Double, comment="jobs that fall due a second"),
    Column("total", BigInteger, comment="counted beforehand"),
    Column(
        "after_job",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="jobs up to this one are done",
    ),
    Column(
        "after_event",
        Uuid,
        nullable=False,
        server_default=text(f"'{UUID(int=0)}'"),
        comment="events up to this one are done",
    ),
    Column("last_job", BigInteger, comment="jobs after this one came later, and are not meant"),
    Column("last_event", Uuid, comment="likewise"),
    Column("paced_until", Timestamp, comment="with a rate: when what was put back last is due"),
    Column("problem", Text, comment="why it failed"),
    Column(
        "taken_back",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="jobs and events that a pause or cancel took back",
    ),
    Column(
        "taking_back",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="there may be more to take back",
    ),
    Column(
        "after_jobs_of",
        Uuid,
        nullable=False,
        server_default=text(f"'{UUID(int=0)}'"),
        comment="the jobs of events up to this one are done",
    ),
    _one_of("action", BULK_ACTIONS),
    _one_of("status", BULK_STATUSES),
    Index("replays_running", "id", postgresql_where=text("status = 'running'")),
    Index("replays_taking_back", "id", postgresql_where=text("taking_back")),
)

# What a replay took back before it began: jobs, and events that were to be admitted again.
taken_back = Table(
    "taken_back",
    metadata,
    Column("replay", BigInteger, primary_key=True, autoincrement=False),
    Column("event", Uuid, primary_key=True),
    Column("job", BigInteger, primary_key=True, autoincrement=False, comment="0: it had none yet"),
)

# Everything else that operators did: who, when, what, to what, why.
actions = Table(
    "actions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", Timestamp, nullable=False, server_default=func.now()),
    Column("by", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text),
    Column("replay", BigInteger, comment="the bulk action that this began"),
    Column("via", Text, comment="how they came in: password, oidc, token, loopback, command line"),
    Column("subject", Text, comment="who it is for ever, where an OIDC provider tells the name"),
)

# Searches that somebody named, for all users. Kept as text: `since:2h` means another time each day.
views = Table(
    "views",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("query", Text, nullable=False, comment="as it was typed"),
    Column("oldest_first", Boolean, nullable=False, server_default=text("false")),
    Column("made_by", Text, nullable=False),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
)

# Events that operators made of others, with an edited body (ingest.sources.operator).
copies = Table(
    "copies",
    metadata,
    Column("number", Uuid, primary_key=True, comment="given with the order: again is the same"),
    Column("event", Uuid, nullable=False, unique=True, comment="the copy"),
    Column("origin", Uuid, nullable=False, index=True, comment="the event that it was made of"),
    Column("at", Timestamp, nullable=False, server_default=func.now()),
    Column("by", Text, nullable=False),
    Column("reason", Text),
)

# The requests that were sent to the API with an Idempotency-Key (ingest.store.keyed_requests).
keyed_requests = Table(
    "keyed_requests",
    metadata,
    Column(
        "key",
        LargeBinary,
        primary_key=True,
        comment="a digest of the author and the Idempotency-Key",
    ),
    Column(
        "request",
        LargeBinary,
        nullable=False,
        comment="a digest, keyed with the Idempotency-Key",
    ),
    Column("began_at", Timestamp, nullable=False, server_default=func.now(), index=True),
    Column(
        "answer",
        LargeBinary,
        comment="encrypted with the Idempotency-Key; null: it runs, or its end is not known",
    ),
)

# The processors that workers have registered, and which of them are paused.
processors = Table(
    "processors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("types", JSONB, nullable=False),
    Column("queue", Text, nullable=False),
    Column("batch", Boolean, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("timeout_s", Double, nullable=False),
    Column("registered_at", Timestamp, nullable=False),
    Column("paused_at", Timestamp),
    Column("paused_by", Text),
    Column("pause_reason", Text),
    Column(
        "parked",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the relay has put jobs of it aside",
    ),
    Column("ordered_by", Text, comment="what its jobs are kept in order by; null: no order"),
    Column("on_dead", Text, comment="with an order: wait or skip, what is behind a dead letter"),
    Column("about", Text, comment="the first line of its docstring"),
    Column("retry_base_s", Double, comment="longest wait after the first failure"),
    Column("retry_max_delay_s", Double, comment="longest wait after any failure"),
)

# The circuit breakers of processors: a target that is down parks the jobs, all but a probe. The
# message of the last error is read from its attempt, so that what is erased there is erased here.
breakers = Table(
    "breakers",
    metadata,
    Column("processor", Text, primary_key=True),
    Column("watches", Text, nullable=False, comment="the errors that say that the target is down"),
    Column("opens_after", Integer, nullable=False),
    Column("probe_every_s", Double, nullable=False),
    Column(
        "failures",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="such errors in a row, over all workers",
    ),
    Column("error_type", Text, comment="of the last such error"),
    Column("error_job", BigInteger, comment="whose attempt has the message of that error"),
    Column("error_attempt", Integer, comment="the number of that attempt"),
    Column("opened_at", Timestamp, comment="null: it is closed"),
    Column("probe_at", Timestamp, comment="open: no probe before"),
    Column("probe_job", BigInteger, comment="the only job that may be claimed while it is open"),
    Column("probe_attempt", Integer, comment="its attempts when it was chosen"),
    Column("probes", Integer, nullable=False, server_default=text("0"), comment="since it opened"),
    Column("closed_at", Timestamp, comment="the last time"),
    Column("closed_by", Text, comment="that time; null: by itself"),
    postgresql_with={
        "fillfactor": 50,
        "autovacuum_vacuum_scale_factor": 0.0,
        "autovacuum_vacuum_threshold": 1000,
    },
)

# When the periodic processors are due. A worker registers the schedule, a relay makes the runs.
schedules = Table(
    "schedules",
    metadata,
    Column("processor", Text, primary_key=True),
    Column("expression", Text, nullable=False, comment="cron, five fields"),
    Column("zone", Text, nullable=False),
    Column("missed", Text, nullable=False, comment="which missed due times get a run"),
    Column("overlap", Boolean, nullable=False, comment="whether runs may overlap"),
    Column("next_due_at", Timestamp, nullable=False, comment="nothing is decided from then on"),
    Column(
        "skipped",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="due times since the last run that have none",
    ),
    Column("last_due_at", Timestamp, comment="of the last run that was due by the schedule"),
    Column("last_event", Uuid, comment="the event of the last run"),
    _one_of("missed", MISSED_RULES),
)

# The running processes. Each reports itself; one that was killed stops reporting.
processes = Table(
    "processes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("queues", ARRAY(Text), comment="a worker: those it consumes"),
    Column("processors", ARRAY(Text), comment="a worker: those it has"),
    Column(
        "lacks",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="what its role may not do and needs to",
    ),
    Column(
        "remembers",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="a worker: its admit knows removed and erased events",
    ),
    Column(
        "body_keys",
        ARRAY(Text),
        comment="ids of the keys of bodies that it has, newest first; null: it knows of none",
    ),
)

# The keys that bodies are encrypted with, by their ids. A key is here before the first body that it
# encrypts, and until none is left (ingest.store.encryption).
body_keys = Table(
    "body_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("used_since", Timestamp, nullable=False, server_default=func.now()),
)

# The processors and queues whose jobs are parked because no worker can take them. Jobs of a paused
# processor are recorded in `processors.parked`.
parked = Table(
    "parked",
    metadata,
    Column("processor", Text, primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("since", Timestamp, nullable=False, server_default=func.now()),
    _one_of("reason", PARK_REASONS),
)

# The last refused requests, a few for each reason: anybody can send them, so their number is
# bounded.
refusals = Table(
    "refusals",
    metadata,
    Column("reason", Text, primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False),
    Column("source", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("detail", JSONB, nullable=False, comment="headers that tell what went wrong; no body"),
)

# How many requests were refused (ingest.store.reports.refusal_counts): a row a minute, reason,
# source and address. Their number is bounded, too.
refusal_counts = Table(
    "refusal_counts",
    metadata,
    Column("minute", Timestamp, primary_key=True, comment="or quarter or hour, once it is old"),
    Column("reason", Text, primary_key=True),
    Column("source", Text, primary_key=True, comment="empty: none of that name is configured"),
    Column("client", Text, primary_key=True, comment="their address; empty: further addresses"),
    Column("status", SmallInteger, nullable=False),
    Column("sentence", Text, nullable=False, comment="what the last sender was told"),
    Column("count", BigInteger, nullable=False),
    Column("first_at", Timestamp, nullable=False),
    Column("last_at", Timestamp, nullable=False),
    Column("request", Uuid, nullable=False, comment="the id in the last answer"),
    postgresql_with={"fillfactor": 50},
)

# The keys that sign the console's sessions. Knowing only a key, or only the users, is not enough to
# forge a session (ingest.console.auth.sessions).
console_keys = Table(
    "console_keys",
    metadata,
    Column("purpose", Text, primary_key=True),
    Column(
        "key", LargeBinary, nullable=False, comment="random, and known to nobody but the consoles"
    ),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
)

# Sessions of the console that were logged out of, kept until they would have expired.
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("expires_at", Timestamp, nullable=False, comment="when it would have ended by itself"),
)

ERASURE_STATUSES = ("searching", "found", "erasing", "finished", "cancelled")

# The requests to erase a person (ingest.erasure).
erasures = Table(
    "erasures",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("requested_at", Timestamp, nullable=False, server_default=func.now()),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text),
    Column(
        "persons",
        ARRAY(LargeBinary),
        nullable=False,
        comment="keyed digests of the numbers and ids that were given",
    ),
    Column("source", Text, comment="only its events; null: those of all sources"),
    Column("status", Text, nullable=False),
    Column("identifiers", JSONB, comment="what is searched for, in clear; null once it has ended"),
    Column(
        "position", JSONB, nullable=False, server_default=text("'{}'"), comment="how far it has got"
    ),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("finished_at", Timestamp),
    Column(
        "background",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the console runs it; otherwise a command does",
    ),
    Column("advanced_at", Timestamp, comment="its last batch ended"),
    Column("problem", Text, comment="why it waits, or was cancelled"),
    _one_of("status", ERASURE_STATUSES),
)

# The events that were erased. The ledger keeps them, so that a late duplicate is recognised.
erased_events = Table(
    "erased_events",
    metadata,
    Column("event", Uuid, primary_key=True),
    Column("erasure", BigInteger, nullable=False, index=True),
)

# The key of the digests that stand for erased names. Without it, a duplicate of an erased event
# whose id held a number is not recognised.
erasure_keys = Table(
    "erasure_keys",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),
    Column("made_at", Timestamp, nullable=False, server_default=func.now()),
)

# What is wrong, or was (ingest.alerts): a row from when a condition was first seen until some time
# after the recovery.
alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="what it is about; empty: there is only one"),
    Column("sentence", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("since", Timestamp, nullable=False, comment="the condition was first seen"),
    Column("seen_at", Timestamp, nullable=False, comment="the condition was last seen"),
    Column("fired_at", Timestamp, comment="null: it has not held long enough"),
    Column("clear_since", Timestamp, comment="null: the condition holds"),
    Column("recovered_at", Timestamp),
    Column("told_at", Timestamp, comment="the last message about it was written"),
    Column("told_value", Double, comment="the value in it, or a lower one that was seen since"),
    Column("recovery_told_at", Timestamp),
    Column("acknowledged_at", Timestamp),
    Column("acknowledged_by", Text),
    Index(
        "alerts_open", "rule", "subject", unique=True, postgresql_where=text("recovered_at IS NULL")
    ),
    Index("alerts_recovered", "recovered_at", postgresql_where=text("recovered_at IS NOT NULL")),
)

# Messages about alerts, each for one channel.
alert_messages = Table(
    "alert_messages",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid, nullable=False, unique=True, comment="the same in every attempt"),
    Column("channel", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("made_at", Timestamp, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", Timestamp, comment="not before; null: it was sent or given up"),
    Column("sent_at", Timestamp),
    Column("error", Text, comment="of the last attempt"),
    Index(
        "alert_messages_waiting",
        "channel",
        "number",
        postgresql_where=text("next_at IS NOT NULL"),
    ),
)

# Whose turn it was last to do what one process does for all.
alert_turns = Table(
    "alert_turns",
    metadata,
    Column("purpose", Text, primary_key=True),
    Column("at", Timestamp, nullable=False),
    Column("by", Text, nullable=False, comment="the process"),
)

# What was behind, every few seconds (ingest.store.reports.behind).
backlog_samples = Table(
    "backlog_samples",
    metadata,
    Column("at", Timestamp, primary_key=True),
    Column("deliveries", BigInteger, nullable=False, comment="not admitted"),
    Column("jobs", BigInteger, nullable=False, comment="due, and not claimed"),
    Column("age_s", Double, nullable=False, comment="how long the oldest of them had been due"),
    Column("is_least", Boolean, nullable=False, comment="there may have been more"),
)

# Counts per minute (ingest.store.pipeline.metrics). A `bucket` holds durations up to twice as long
# as the one before; of a duration, `slot` also tells which part of the bucket it is in.
activity = Table(
    "activity",
    metadata,
    Column("minute", Timestamp, primary_key=True, comment="or hour, once it is old"),
    Column("what", Text, primary_key=True),
    Column("label", Text, primary_key=True, comment="which processor, source or reason"),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False, comment="how long"),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    # What has no sums (ingest.store.pipeline.activity_sums): three rows a minute at most.
    Index(
        "activity_of_receipt",
        "what",
        "minute",
        postgresql_where=text("what IN ('event', 'duplicate', 'possible_loss')"),
    ),
    postgresql_with={"fillfactor": 50},
)

# What `activity` has of quarters of an hour and of hours that have ended, durations in two arrays
# (ingest.store.pipeline.activity_sums).
activity_sums = Table(
    "activity_sums",
    metadata,
    Column(
        "span_s",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="how many seconds it sums up",
    ),
    Column("begins", Timestamp, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("total", BigInteger, nullable=False, comment="the sum of the counts"),
    Column(
        "cells",
        ARRAY(SmallInteger),
        nullable=False,
        comment="five times the bucket, and its part",
    ),
    Column("counts", ARRAY(BigInteger), nullable=False, comment="of each cell"),
    # Most charts need totals only, and those of one kind.
    Index(
        "activity_sums_totals",
        "what",
        "span_s",
        "begins",
        postgresql_include=["label", "total"],
    ),
)

# Events without a job, and the row counts of tables that only grow. Both could be computed only by
# reading everything, so triggers keep them, whatever version of the code writes.
unhandled = Table("unhandled", metadata, Column("event", Uuid, primary_key=True))

totals = Table(
    "totals",
    metadata,
    Column("counted", Text, primary_key=True, comment="the table"),
    Column(
        "slot",
        SmallInteger,
        primary_key=True,
        autoincrement=False,
        comment="several a table, so that workers seldom wait for each other",
    ),
    Column("rows", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
)

# How far each kind of retention has come. An event is remembered first and removed later.
retention = Table(
    "retention",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("removed", BigInteger, nullable=False, server_default=text("0"), comment="rows, ever"),
    Column("ended_at", Timestamp, comment="when nothing older was left last"),
    Column(
        "removed_to",
        Uuid,
        nullable=False,
        server_default=text(f"'{UUID(int=0)}'"),
        comment="rows up to this id are done in this pass",
    ),
    Column(
        "remembered_to",
        Uuid,
        nullable=False,
        server_default=text(f"'{UUID(int=0)}'"),
        comment="events: those up to this one are in past_events",
    ),
    Column("closed_at", Timestamp, comment="events: since when older code may not start"),
)


def _normal_phone(column: str) -> Column[str]:
    return Column(
        f"{column}_normal",
        Text,
        Computed(f"normal_phone({column})", persisted=True),
        index=True,
        comment="the digits, however they were written",
    )


_VERSIONS = "per field, what set it; null: the event ids and times say so"

# The read model that the built-in processors keep: a row an entity. A column `*_event_id` names the
# event that set the fields before it. That id and the fields' time decide what may replace them.
messages = Table(
    "messages",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("conversation_id", BigInteger, index=True),
    Column("from_number", Text),
    Column("to_number", Text),
    Column("type", Text),
    Column("body", Text),
    Column("timestamp", Timestamp),
    Column("received_event_id", Text),
    Column("status", Text),
    Column("status_at", Timestamp),
    Column("status_event_id", Text),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
    Column("versions", JSONB, comment=_VERSIONS),
    _normal_phone("from_number"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("contact_id", BigInteger, index=True),
    Column("phone_number", Text),
    Column("created_at", Timestamp),
    Column("created_event_id", Text),
    Column("status", Text),
    Column("updated_at", Timestamp),
    Column("updated_event_id", Text),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
    Column("versions", JSONB, comment=_VERSIONS),
    _normal_phone("phone_number"),
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", BigInteger, primary_key=True, autoincrement=False),
    Column("conversation_id", BigInteger, index=True),
    Column("total", Numeric),
    Column("currency", Text),
    Column("created_at", Timestamp),
    Column("created_event_id", Text),
    Column("status", Text),
    Column("updated_at", Timestamp),
    Column("updated_event_id", Text),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
    Column("versions", JSONB, comment=_VERSIONS),
)

CHANGED_AT = "coalesce(updated_at, sent_at, '0001-01-01 00:00:00+00'::timestamptz)"
order_status_changes = Table(
    "order_status_changes",
    metadata,
    Column("order_id", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, primary_key=True),
    Column("old_status", Text),
    Column("new_status", Text),
    Column("updated_at", Timestamp),
    Column("sent_at", Timestamp, comment="by its envelope, where it has no time of its own"),
    Index(
        "order_status_changes_changed_at",
        "order_id",
        text(CHANGED_AT),
        text('event_id COLLATE "C"'),
    ),
)

contacts = Table(
    "contacts",
    metadata,
    Column("contact_id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text),
    Column("phone", Text),
    Column("email", Text),
    Column("contact_group_id", BigInteger),
    Column("is_favorite", Boolean),
    Column("avatar", Text),
    Column("created_at", Timestamp),
    Column("updated_at", Timestamp),
    Column("versions", JSONB, nullable=False, comment="per field, what set it"),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
    _normal_phone("phone"),
)

# The read model of WhatsApp's Cloud API. A message names its contact by what the event said: a
# business-scoped user id, a phone number or both. `whatsapp_identities` says whose that is now.
whatsapp_messages = Table(
    "whatsapp_messages",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("direction", Text, comment="inbound or outbound"),
    Column("waba_id", Text, comment="the business account"),
    Column("phone_number_id", Text, comment="the number of the business"),
    Column("contact_user_id", Text, index=True, comment="business-scoped"),
    Column("contact_phone", Text, index=True, comment="digits"),
    Column("group_id", Text),
    Column("type", Text),
    Column("text", Text, comment="text, caption, or the title of what was chosen"),
    Column("media_id", Text),
    Column("mime_type", Text),
    Column("sha256", Text),
    Column("filename", Text),
    Column("reply_to", Text, comment="the message that it answers or reacts to"),
    Column("content", JSONB, comment="the whole object that is named after the type"),
    Column("timestamp", Timestamp),
    Column("received_event_id", Text),
    Column("status", Text),
    Column("status_at", Timestamp),
    Column("status_event_id", Text),
    Column("error_code", BigInteger),
    Column("error_title", Text),
    Column("error_details", Text),
    Column("failed_at", Timestamp),
    Column("failed_event_id", Text),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
    Column("versions", JSONB, comment=_VERSIONS),
)

whatsapp_message_statuses = Table(
    "whatsapp_message_statuses",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("at", Timestamp),
    Column("recipient_user_id", Text),
    Column("recipient_phone", Text),
    Column("error_code", BigInteger),
    Column("error_title", Text),
    Column("error_details", Text),
    Column("pricing_category", Text),
    Column("pricing_model", Text),
    Column("callback_data", Text, comment="what was attached when it was sent"),
)

# What was said of one user id or phone number, and which one took its place.
whatsapp_identities = Table(
    "whatsapp_identities",
    metadata,
    Column("identity", Text, primary_key=True, comment="a business-scoped user id, or digits"),
    Column("contact_id", Text, index=True, comment="whose it is: the end of the successors"),
    Column("successor", Text, comment="the identity that took its place"),
    Column("phone", Text),
    Column("name", Text),
    Column("username", Text),
    Column("parent_user_id", Text),
    Column("versions", JSONB, nullable=False, comment="per field, what set it"),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
)

whatsapp_contacts = Table(
    "whatsapp_contacts",
    metadata,
    Column("contact_id", Text, primary_key=True, comment="the user id, or the phone number"),
    Column("user_id", Text, comment="business-scoped; null: only a phone number is known"),
    Column("phone", Text, index=True, comment="digits; null: not known"),
    Column("name", Text),
    Column("username", Text),
    Column("parent_user_id", Text),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
)

whatsapp_templates = Table(
    "whatsapp_templates",
    metadata,
    Column("template_id", Text, primary_key=True),
    Column("waba_id", Text),
    Column("name", Text),
    Column("language", Text),
    Column("status", Text),
    Column("reason", Text),
    Column("quality", Text),
    Column("category", Text),
    Column("correct_category", Text),
    Column("components", JSONB, comment="the last change of its parts"),
    Column("versions", JSONB, nullable=False, comment="per field, what set it"),
    Column("last_event_at", Timestamp),
    Column("last_event_id", Text, nullable=False),
)

whatsapp_accounts = Table(
    "whatsapp_accounts",
    metadata,
    Column("waba_id", Text, primary_key=True),
    Column("field", Text, primary_key=True, comment="account_update, errors, …"),
    Column("subject", Text, primary_key=True, comment="the number that it is about; empty: none"),
    Column("value", JSONB, nullable=False, comment="as it was sent last"),
    Column("at", Timestamp),
    Column("event_id", Text, nullable=False),
)

READ_MODEL = (
    *(messages, conversations, orders, order_status_changes, contacts),
    *(whatsapp_messages, whatsapp_message_statuses),
    *(whatsapp_identities, whatsapp_contacts),
    *(whatsapp_templates, whatsapp_accounts),
)

# The oldest code that runs on each revision of the schema (ingest.store.migrations).
revisions = Table(
    "revisions",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("oldest_code", Text, nullable=False, comment="code of this revision still runs on it"),
)


@event.listens_for(metadata, "before_create")
def _create_functions(
    _metadata: MetaData, connection: Connection, *, tables: Sequence[Table], **_more: Any
) -> None:
    """Create the functions, unless only the read model's tables are created."""
    if totals in tables:
        for function in triggers.FUNCTIONS:
            connection.exec_driver_sql(function)


@event.listens_for(metadata, "after_create")
def _create_triggers(
    _metadata: MetaData, connection: Connection, *, tables: Sequence[Table], **_more: Any
) -> None:
    """Create the triggers, unless only the read model's tables were created."""
    if totals in tables:
        for trigger in triggers.TRIGGERS:
            connection.execute(text(trigger))
