"""What lies around the events: attempts, bulk actions, the audit log, refusals, counts."""

import json
from datetime import timedelta

from ingest.store.reports.refusal_counts import KEPT
from tests.support.month.ledger import PAUSED, PROCESSORS, REPLAYS

_UNADMITTED = "%(total)s * 3 / 1000"
_REJECTED = "%(total)s / 500"

_ATTEMPTS = """
    INSERT INTO ingest.attempts (job, number, trigger, worker, started_at, finished_at, outcome,
                                 error_type, error_message, traceback, place)
    SELECT id, number, CASE number WHEN 1 THEN 'delivery' ELSE 'retry' END, worker,
           started_at - (attempt - number) * interval '1 min',
           started_at - (attempt - number) * interval '1 min' + interval '0.1 s', 'failed',
           (ARRAY['KeyError', 'TimeoutError', 'ValueError', 'shop.errors.Refused'])[1 + mod(id, 4)],
           'something about ' || event,
           'Traceback (most recent call last):' || E'\\n'
               || repeat('  File "/app/shop/sales.py", line 40, in sell' || E'\\n    x()\\n', 12)
               || '  File "/app/shop/crm.py", line ' || 10 + mod(id, 50)
               || E', in call\\n    raise\\n',
           'shop.crm:call'
    FROM ingest.jobs CROSS JOIN LATERAL generate_series(1, attempt) AS number
    WHERE state IN ('dead', 'retrying')
"""
_NEWEST = """
    SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - ({count}) + i), 12, '0') || '7'
            || substr(hash, 1, 3) || '8' || substr(hash, 5, 15))::uuid AS id, i, hash
    FROM (SELECT i, md5('{name}' || i) AS hash FROM generate_series(1, {count}) AS i) AS made
"""
_WAITING = f"""
    WITH waiting AS MATERIALIZED ({_NEWEST.format(count=_UNADMITTED, name="waits")}), kept AS (
        INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body)
        SELECT id, 'awalchat', now(), '00000000', '[]', convert_to(json_build_object(
            'event', 'message.received', 'data', json_build_object('message_id', hash)
        )::text, 'UTF8') FROM waiting
    )
    INSERT INTO ingest.unadmitted (delivery, source, event_id, type, fingerprint, received_at,
                                   queue, hint_at)
    SELECT id, 'awalchat', 'message.received:' || hash, 'message.received', '\\x00', now(),
           'events', now() + interval '10 s'
    FROM waiting
"""
_NO_EVENTS = f"""
    INSERT INTO ingest.deliveries (id, source, received_at, key_id, headers, body, rejected)
    SELECT (lpad(to_hex(ms), 12, '0') || substr(id::text, 15, 4) || substr(id::text, 20, 4)
            || substr(id::text, 25))::uuid, 'awalchat', to_timestamp(ms / 1000.0),
           '00000000', '[]', '{{"event":7}}',
           (ARRAY['event_not_string', 'data_not_object', 'not_json'])[1 + mod(i, 3)]
    FROM (
        SELECT id, i,
               (extract(epoch FROM now()) * 1000)::bigint - i * 2592000000 / ({_REJECTED}) AS ms
        FROM ({_NEWEST.format(count=_REJECTED, name="no event")}) AS made
    ) AS spread
"""
_REPLAYS = """
    INSERT INTO ingest.replays (requested_at, requested_by, reason, selection, jobs, total,
                                finished_at, status, action)
    SELECT now() - i * interval '3 hours', 'alice', 'the mend is out', '{"state": "dead"}',
           10 + i, 10 + i, now() - i * interval '3 hours' + interval '1 min', 'finished',
           CASE mod(i, 5) WHEN 0 THEN 'discard' ELSE 'replay' END
    FROM generate_series(1, 300) AS i
"""
_TAKEN_BACK = f"""
    INSERT INTO ingest.taken_back (replay, event, job)
    SELECT {REPLAYS}, event, id FROM ingest.jobs WHERE replay = {REPLAYS} LIMIT 10000
"""
_ACTIONS = """
    INSERT INTO ingest.actions (at, by, action, target, reason)
    SELECT now() - (20000 - i) * interval '5 min', (ARRAY['alice', 'bob', 'carol'])[1 + mod(i, 3)],
           (ARRAY['pause', 'resume', 'retry', 'save view'])[1 + mod(i, 4)], 'my_app.payments',
           'a reason'
    FROM generate_series(1, 20000) AS i
"""
_VIEWS = """
    INSERT INTO ingest.views (name, query, made_by)
    SELECT 'View ' || i, 'type:order.* state:dead', 'alice' FROM generate_series(1, 30) AS i
"""
_ERASURES = """
    INSERT INTO ingest.erasures (requested_at, requested_by, reason, persons, status, counts,
                                 finished_at)
    SELECT now() - i * interval '2 hours', 'alice', 'asked for it', ARRAY[sha256(i::text::bytea)],
           'finished', '{"events": 12}', now() - i * interval '2 hours'
    FROM generate_series(1, 300) AS i
"""
_ALERTS = """
    INSERT INTO ingest.alerts (rule, subject, sentence, value, since, seen_at, fired_at,
                               recovered_at)
    SELECT 'dead_letters', 'processor ' || i, 'There are ' || i || ' dead letters.', i,
           now() - i * interval '1 hour', now() - i * interval '50 min',
           now() - i * interval '59 min',
           CASE WHEN i > 12 THEN now() - i * interval '50 min' END
    FROM generate_series(1, 700) AS i
"""
_ALERT_MESSAGES = """
    INSERT INTO ingest.alert_messages (id, channel, content, made_at, attempts, sent_at)
    SELECT gen_random_uuid(), 'mail', '{"text": "a message"}', now() - i * interval '1 hour', 1,
           now() - i * interval '1 hour'
    FROM generate_series(1, 700) AS i
"""
LONG_PAST = """
    INSERT INTO ingest.past_events (digest, fingerprint, event, day)
    SELECT substring(sha256(i::text::bytea) FOR 16), '\\x00', gen_random_uuid(),
           now() - interval '40 days'
    FROM generate_series(1, 1000000) AS i
"""
"""Stores a million events that retention has removed."""
_TOTALS = """
    INSERT INTO ingest.totals (counted, slot, rows)
    SELECT 'events', 0, count(*) FROM ingest.events
    UNION ALL SELECT 'duplicates', 0, count(*) FROM ingest.duplicates
    UNION ALL SELECT 'jobs', 0, count(*) FROM ingest.jobs
    UNION ALL SELECT 'unhandled', 0, count(*) FROM ingest.unhandled
    ON CONFLICT (counted, slot) DO UPDATE SET rows = excluded.rows
"""

ACTIVITY_OF = timedelta(days=60)
"""How far the counts go back."""
# As the relay has merged it: minutes of two hours, quarters of 26, hours of two months.
_HAPPENED = "', '".join(PROCESSORS)
_ACTIVITY = f"""
    INSERT INTO ingest.activity (minute, what, label, bucket, slot, count)
    SELECT minute, what, label, bucket, 16 * part, 20 + bucket
    FROM (SELECT generate_series(date_trunc('minute', now()) - interval '2 hours', now(),
                                 interval '1 minute')
          UNION
          SELECT generate_series(date_trunc('hour', now()) - interval '26 hours', now(),
                                 interval '15 minutes')
          UNION
          SELECT generate_series(
              date_trunc('hour', now()) - interval '{ACTIVITY_OF.days} days', now(),
              interval '1 hour')) AS at (minute)
    CROSS JOIN (
        SELECT 'event', '', 0, 0 UNION ALL SELECT 'duplicate', '', 0, 0
        UNION ALL SELECT 'answer', '', b, part
        FROM generate_series(1, 7) AS b, generate_series(1, 4) AS part
        UNION ALL SELECT 'lag', '', b, part
        FROM generate_series(2, 10) AS b, generate_series(1, 4) AS part
        UNION ALL SELECT 'succeeded', p, b, part
        FROM unnest(ARRAY['{_HAPPENED}']) AS p, generate_series(2, 7) AS b,
             generate_series(1, 4) AS part
        UNION ALL SELECT 'failed', p, 0, 0 FROM unnest(ARRAY['{_HAPPENED}']) AS p
        UNION ALL SELECT 'key', source || ' ' || substr(md5(source || old), 1, 8), 0, 0
        FROM unnest(ARRAY['awalchat', 'whatsapp', 'shopify', 'github', 'stripe']) AS source,
             unnest(ARRAY['', '-old']) AS old
        UNION ALL SELECT 'refused', reason, 0, 0 FROM unnest(ARRAY[
            'signature_missing', 'signature_mismatch', 'unknown_source', 'body_too_large'
        ]) AS reason
        UNION ALL SELECT 'unreadable', 'orders.' || field, 0, 0
        FROM unnest(ARRAY['total', 'created_at']) AS field
    ) AS happened (what, label, bucket, part)
    ORDER BY minute
"""
# As many as are kept: twenty addresses of each reason a minute, and of old ones an hour.
_REFUSAL_COUNTS = f"""
    INSERT INTO ingest.refusal_counts (minute, reason, source, client, status, sentence, count,
                                       first_at, last_at, request)
    SELECT minute, reason, CASE reason WHEN 'unknown_source' THEN '' ELSE 'awalchat' END,
           CASE client WHEN 20 THEN '' ELSE '198.51.100.' || client END,
           CASE reason WHEN 'unknown_source' THEN 404 WHEN 'body_too_large' THEN 413 ELSE 401 END,
           'This is what the sender was told of it.', 10 + client, minute, minute + interval '50 s',
           gen_random_uuid()
    FROM (SELECT generate_series(date_trunc('minute', now()) - interval '2 hours', now(),
                                 interval '1 minute')
          UNION
          SELECT generate_series(date_trunc('hour', now()) - interval '26 hours', now(),
                                 interval '15 minutes')
          UNION
          SELECT generate_series(date_trunc('hour', now()) - interval '30 days', now(),
                                 interval '1 hour')) AS at (minute)
    CROSS JOIN unnest(ARRAY['signature_missing', 'signature_mismatch', 'unknown_source',
                            'body_too_large']) AS reason
    CROSS JOIN generate_series(1, 20) AS client
    ORDER BY minute DESC LIMIT {KEPT}
"""
_REFUSALS = """
    INSERT INTO ingest.refusals (reason, slot, at, source, client, detail)
    SELECT reason, slot, now() - slot * interval '1 min', 'awalchat', '198.51.100.' || slot,
           '{"headers": {}}'
    FROM unnest(ARRAY['signature_missing', 'signature_mismatch', 'unknown_source']) AS reason
    CROSS JOIN generate_series(0, 4) AS slot
"""
_SAMPLES = """
    INSERT INTO ingest.backlog_samples (at, deliveries, jobs, age_s, is_least)
    SELECT at, 20000, 100, 60, false
    FROM generate_series(now() - interval '8 days', now(), interval '10 s') AS at
"""
_TYPES = json.dumps(PROCESSORS)
_REGISTERED = f"""
    INSERT INTO ingest.processors (name, types, queue, batch, threads, max_attempts, timeout_s,
                                   registered_at, paused_at, paused_by, pause_reason, parked)
    SELECT key, value, 'events', true, 1, 8, 30, now(),
           CASE key WHEN '{PAUSED}' THEN now() - interval '6 days' END,
           CASE key WHEN '{PAUSED}' THEN 'alice' END, NULL, key = '{PAUSED}'
    FROM jsonb_each('{_TYPES}')
"""

ONCE = (
    *(_ATTEMPTS, _WAITING, _NO_EVENTS, _REPLAYS, _TAKEN_BACK, _ACTIONS, _VIEWS, _ERASURES),
    *(_ALERTS, _ALERT_MESSAGES, _REGISTERED, _TOTALS),
)
"""Stored after the events; some name `total`."""
UP_TO_NOW = (
    "DELETE FROM ingest.activity",
    "DELETE FROM ingest.activity_sums",
    _ACTIVITY,
    "DELETE FROM ingest.refusal_counts",
    _REFUSAL_COUNTS,
    "DELETE FROM ingest.refusals",
    _REFUSALS,
    "DELETE FROM ingest.backlog_samples",
    _SAMPLES,
    _TOTALS,
    "VACUUM (ANALYZE) ingest.activity, ingest.refusal_counts, ingest.backlog_samples",
)
"""What pages count back from now: stored anew each time that it is measured."""
