"""The privileges that each kind of process needs, and which of them its role lacks."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from ingest.store import schema as tables
from ingest.store.engine import WriterConnection
from ingest.store.sql import statement

# S, I, U, D: SELECT, INSERT, UPDATE, DELETE. `ON CONFLICT (column)` reads the column, and a row
# lock needs UPDATE. Triggers write `totals`, `unhandled` and `activity` with the privileges of the
# role that writes events, duplicates and jobs.
_VERBS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}
_PRESENCE = {"processes": "SIUD"}
_COUNTED = {"activity": "SIU", "totals": "SIU", "unhandled": "SID"}
_ALERTS = {"alert_messages": "SIUD", "alert_turns": "SIU", "alerts": "SIUD"}
# The console erases persons from it. What was not made (INGEST_READ_MODEL) needs no privilege.
_READ_MODEL = {table.name: "SUD" for table in tables.READ_MODEL}
NEEDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "receiver": _PRESENCE
        | {
            "deliveries": "SI",
            "unadmitted": "SI",
            "activity": "SIU",
            "refusal_counts": "SIU",
            "refusals": "SIU",
            "body_keys": "SI",
            "revisions": "S",
        },
        "worker": _PRESENCE
        | _COUNTED
        | {
            "body_keys": "S",
            "breakers": "SIUD",
            "deliveries": "SU",
            "erasure_keys": "S",
            "unadmitted": "SIUD",
            "events": "SI",
            "duplicates": "SI",
            "jobs": "SIU",
            "attempts": "SI",
            "keys_in_work": "SID",
            "limited_jobs": "SIUD",
            "limited_keys": "SIUD",
            "limits": "SIU",
            "ordered_jobs": "SIUD",
            "past_events": "S",
            "processors": "SIU",
            "schedules": "SIUD",
            "ungrouped": "I",
        },
        "relay": _PRESENCE
        | _COUNTED
        | _ALERTS
        | {
            "actions": "SD",
            "activity": "SIUD",
            "activity_sums": "SIUD",
            "attempts": "SID",
            "backlog_samples": "SID",
            "breakers": "SU",
            "copies": "SD",
            "deliveries": "SIU",
            "duplicates": "SID",
            "erasure_keys": "S",
            "events": "SID",
            "failure_counts": "SIUD",
            "failure_groups": "SIUD",
            "failure_notes": "SD",
            "failure_releases": "SIUD",
            "jobs": "SIUD",
            "keyed_requests": "SD",
            "keys_in_work": "SD",
            "limited_jobs": "SUD",
            "limited_keys": "SIUD",
            "limits": "SU",
            "ordered_jobs": "SD",
            "parked": "SIUD",
            "past_events": "SIUD",
            "processors": "SU",
            "refusal_counts": "SIUD",
            "refusals": "SD",
            "replays": "SD",
            "retention": "SIU",
            "revisions": "SU",
            "schedules": "SU",
            "taken_back": "SD",
            "unadmitted": "SIUD",
            "ungrouped": "SID",
        },
        "console": _PRESENCE
        | _COUNTED
        | _ALERTS
        | _READ_MODEL
        | {
            "actions": "SIU",
            "activity_sums": "S",
            "attempts": "SIUD",
            "backlog_samples": "SID",
            "body_keys": "SI",
            "breakers": "SU",
            "console_keys": "SI",
            "copies": "SIU",
            "deliveries": "SIU",
            "duplicates": "SI",
            "ended_sessions": "SID",
            "erased_events": "SI",
            "erasure_keys": "SI",
            "erasures": "SIU",
            "events": "SIU",
            "failure_counts": "S",
            "failure_groups": "SU",
            "failure_notes": "SIU",
            "failure_releases": "S",
            "jobs": "SIUD",
            "keyed_requests": "SIUD",
            "keys_in_work": "SD",
            "limited_jobs": "S",
            "limited_keys": "SU",
            "limits": "SU",
            "ordered_jobs": "SD",
            "parked": "S",
            "past_events": "SU",
            "processors": "SU",
            "refusal_counts": "S",
            "refusals": "SUD",
            "replays": "SIU",
            "retention": "SIU",
            "revisions": "SU",
            "schedules": "SU",
            "taken_back": "SID",
            "unadmitted": "SIUD",
            "views": "SIUD",
        },
    }
)
"""For each kind of process: the tables, and what it does with them."""


# Reads the catalogues, because `to_regclass` fails where USAGE on the schema is missing.
_LACKS = """
    SELECT 'lacks USAGE on the schema ' || nspname AS lacks
    FROM pg_catalog.pg_namespace
    WHERE nspname = :schema AND NOT pg_catalog.has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT 'lacks ' || pg_catalog.string_agg(verb, ', ' ORDER BY position) || ' on '
           || nspname || '.' || relname
    FROM ROWS FROM (unnest(CAST(:tables AS text[])), unnest(CAST(:verbs AS text[])))
         WITH ORDINALITY AS need (relation, verb, position)
    JOIN pg_catalog.pg_class ON relname = relation
    JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace AND nspname = :schema
    WHERE NOT pg_catalog.has_table_privilege(pg_class.oid, verb)
    GROUP BY nspname, relname
"""


_NO_PARTITIONS = statement(
    """
    SELECT NOT (pg_has_role(relowner, 'USAGE') AND has_schema_privilege(relnamespace, 'CREATE'))
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace AND nspname = :schema
    WHERE relname = 'deliveries'
    """
)


def lacking(connection: Connection, kind: str, *, schema: str) -> list[str]:
    """Return what the connection's role lacks for a kind of process, each as a predicate.

    For example `lacks UPDATE on ingest.jobs`. Before the schema is migrated nothing is lacking.

    Args:
        connection: a connection of the process.
        kind: `receiver`, `worker`, `relay` or `console`.
        schema: the schema of the tables.
    """
    lacks = list(connection.execute(statement(_LACKS), _parameters(kind, schema)).scalars())
    if kind == "relay" and connection.execute(_NO_PARTITIONS, {"schema": schema}).scalar():
        lacks.append(
            f"is not the owner of {schema}.deliveries, so that the partitions for the coming days"
            " cannot be made"
        )
    return lacks


async def lacking_of_writer(connection: WriterConnection) -> list[str]:
    """Return what a writer's role lacks, as `lacking` does; end a failed transaction first.

    Raises:
        psycopg.Error: the server does not answer.
    """
    await connection.rollback()
    parameters = _parameters("receiver", connection.schema)
    cursor = await connection.execute(
        re.sub(r":(\w+)", r"%(\1)s", _LACKS).encode(), parameters, prepare=False
    )
    return [row[0] for row in await cursor.fetchall()]


def _parameters(kind: str, schema: str) -> dict[str, Any]:
    needs = [(table, _VERBS[verb]) for table, verbs in NEEDS[kind].items() for verb in verbs]
    return {
        "schema": schema,
        "tables": [table for table, _ in needs],
        "verbs": [verb for _, verb in needs],
    }
