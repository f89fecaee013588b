"""Deliveries, events, duplicates and jobs, by the number of the event."""

from tests.support.month.bodies import BODY
from tests.support.month.numbered import (
    CONFLICT_EVERY,
    GITHUB,
    NAMED,
    ORDER_CREATED,
    OTHERS,
    REPEATED_EVERY,
    SHOPIFY,
    uuid7,
    within,
)

PAUSED = "my_app.shop_orders"
"""The processor that was paused some days ago."""
PROCESSORS = {
    "messages": ["message.received", "message.status.updated"],
    "conversations": ["conversation.created", "conversation.updated"],
    "contacts": ["contact.created", "contact.updated"],
    "orders": ["order.created", "order.status.updated"],
    "whatsapp_messages": ["messages", "statuses"],
    "whatsapp_contacts": ["messages", "statuses"],
    PAUSED: ["orders/*"],
    "my_app.deployments": ["push"],
    "my_app.payments": ["charge.*", "invoice.*"],
    "my_app.labels": ["order.created"],
}
REPLAYS = 4
"""The last bulk actions of jobs have the numbers from 1 on."""
_PAUSED_FOR_MS = 6 * 86_400_000

_PROCESSOR = f"""CASE WHEN source = 'whatsapp' THEN 'whatsapp_messages'
    WHEN {within(SHOPIFY)} THEN '{PAUSED}' WHEN {within(GITHUB)} THEN 'my_app.deployments'
    WHEN source = 'stripe' THEN 'my_app.payments'
    WHEN p <= 58 THEN 'messages' WHEN p <= 62 THEN 'conversations'
    WHEN p <= 64 THEN 'contacts' ELSE 'orders' END"""
# Of 10,000 first jobs 20 are dead, 5 were discarded, 10 wait for a retry. Of the last two, some run
# and some are due.
_STATE = f"""CASE
    WHEN {within(SHOPIFY)} AND ms > %(start)s + %(span)s - {_PAUSED_FOR_MS} THEN 'pending'
    WHEN n < 25 THEN 'dead' WHEN n < 35 THEN 'retrying'
    WHEN n = 35 AND i > %(total)s - 40000 THEN 'running'
    WHEN n BETWEEN 36 AND 40 AND i > %(total)s - 40000 THEN 'pending'
    ELSE 'succeeded' END"""
_KEY = "substr(md5(source || CASE WHEN mod(b, 4) = 0 THEN '-old' ELSE '' END), 1, 8)"
_NUMBERED = "to_jsonb(lpad(mod(b, 10000000)::text, 10, '0'))"
_HEADERS = f"""jsonb_build_array(
    jsonb_build_array('content-type', 'application/json'),
    jsonb_build_array('x-signature-timestamp', {_NUMBERED}))"""

_IS_TAKEN = f"NOT (p = {OTHERS} AND source = 'awalchat')"
"""Whether a processor takes it."""

FILL = f"""
    WITH named AS MATERIALIZED (
        SELECT named.*, {_PROCESSOR} AS processor, {_STATE} AS state,
               {uuid7("ms + 2000", "md5(hash)")} AS again
        FROM ({NAMED}) AS named
    ), delivered AS (
        INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body)
        SELECT id, source, at, {_KEY}, {_HEADERS}, {BODY} FROM named
    ), delivered_again AS (
        INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body)
        SELECT again, source, at + interval '2 s', {_KEY}, {_HEADERS}, {BODY} FROM named
        WHERE mod(i, {REPEATED_EVERY}) = 0
    ), repeated AS (
        INSERT INTO ingest.duplicates (delivery, event, received_at, conflict)
        SELECT again, id, at + interval '2 s', mod(i, {CONFLICT_EVERY}) = 0 FROM named
        WHERE mod(i, {REPEATED_EVERY}) = 0
    ), known AS (
        INSERT INTO ingest.events (id, source, event_id, type, fingerprint, received_at)
        SELECT id, source, name, type, sha256(name::bytea), at FROM named
    ), lacking AS (
        INSERT INTO ingest.unhandled SELECT id FROM named WHERE NOT {_IS_TAKEN}
    ), worked AS (
        INSERT INTO ingest.jobs (event, processor, queue, state, trigger, attempt, failures,
                                 max_attempts, next_attempt_at, hinted_until, lease_until,
                                 started_at, finished_at, worker, replay, discarded_at)
        SELECT id, processor, 'events', state,
               CASE WHEN state = 'retrying' THEN 'retry' ELSE 'delivery' END,
               CASE state WHEN 'dead' THEN 3 WHEN 'retrying' THEN 2 WHEN 'pending' THEN 0
                          ELSE 1 END,
               CASE state WHEN 'dead' THEN 3 WHEN 'retrying' THEN 2 ELSE 0 END, 8,
               CASE state WHEN 'pending' THEN at
                          WHEN 'retrying' THEN now() + interval '1 s' * (86400 + mod(i, 86400)) END,
               CASE WHEN state = 'pending' AND processor = '{PAUSED}'
                    THEN CAST('infinity' AS timestamptz) END,
               CASE WHEN state = 'running' THEN now() + interval '1 day' END,
               CASE WHEN state <> 'pending' THEN at + interval '0.1 s' END,
               CASE WHEN state IN ('succeeded', 'dead') THEN at + interval '0.2 s' END,
               CASE WHEN state <> 'pending' THEN 'host:1:aaaaaa' END,
               CASE WHEN n BETWEEN 10 AND 14 OR n BETWEEN 20 AND 24 OR n BETWEEN 100 AND 149
                    THEN 1 + mod(b, {REPLAYS}) END,
               CASE WHEN n BETWEEN 20 AND 24 AND state = 'dead' THEN at + interval '1 hour' END
        FROM named WHERE {_IS_TAKEN}
        UNION ALL
        SELECT id, CASE source WHEN 'whatsapp' THEN 'whatsapp_contacts' ELSE 'my_app.labels' END,
               'events', 'succeeded', 'delivery', 1, 0, 8, NULL, NULL, NULL,
               at + interval '0.1 s', at + interval '0.3 s', 'host:1:aaaaaa', NULL, NULL
        FROM named WHERE source = 'whatsapp' OR {within(ORDER_CREATED)}
    )
    SELECT
"""
"""Stores the events from `first` to `last`, with their deliveries and jobs."""
