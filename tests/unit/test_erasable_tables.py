"""Each table that could name a person is erased from, or is known to name nobody."""

from ingest.store import schema
from ingest.store.erasure import tables

# The ledger and the attempts are erased from by ingest.store.erasure.ledger and .attempts.
OF_THE_LEDGER = {"deliveries", "unadmitted", "events", "duplicates", "jobs", "attempts"} | {
    "past_events"
}
NAME_NOBODY = {
    "parked",  # processors and queues
    "ordered_jobs",  # numbers, and digests of keys, until the job has ended
    "keys_in_work",  # likewise
    "limits",  # processors, and operators who set their limits
    "limited_jobs",  # numbers, and digests of keys, until the job has run
    "limited_keys",  # digests, until their jobs have run and the window of a rate is over
    "processes",  # hosts, queues, processors
    "console_keys",
    "keyed_requests",  # digests, and answers that only the sender of the request can decrypt
    "body_keys",  # ids of keys
    "breakers",  # processors, types of errors, times and numbers
    "ended_sessions",  # random ids
    "activity",  # labels are processors, sources and reasons
    "activity_sums",  # likewise
    "backlog_samples",  # counts
    "failure_counts",
    "failure_releases",  # names of releases
    "ungrouped",  # numbers
    "refusal_counts",  # reasons, sources, addresses of servers, and sentences of ours
    "totals",
    "unhandled",
    "taken_back",  # numbers and ids
    "revisions",
    "alerts",  # rules, with processors, sources and keys as subjects
    "alert_messages",
    "alert_turns",
    "schedules",  # processors and times
    "retention",  # kinds and counts
    schema.erasures.name,  # digests; what is searched for goes when it ends
    schema.erased_events.name,
    schema.erasure_keys.name,
}


def test_every_table_is_accounted_for() -> None:
    """A table that is new goes into `ingest.store.erasure.tables`, or into the list here."""
    others = (*tables.OPERATORS, *tables.REQUESTS, *tables.VIEWS)
    erased = {one.name for one in (*tables.READ_MODEL, *others)}
    every = {table.name for table in schema.metadata.tables.values()}
    assert every == erased | OF_THE_LEDGER | NAME_NOBODY
    assert {table.name for table in schema.READ_MODEL} <= erased
