"""`whatsapp_accounts`: the last state of each account by field, as it was sent, and of each of its
phone numbers where a field is about one."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ingest.store import arrays
from ingest.store.sql import statement
from workers.control import Discard
from workers.event import Event
from workers.processors import whatsapp
from workers.processors.merge import LONG_AGO, discard_unstorable
from workers.processors.whatsapp import Update, mapping
from workers.registry import processor

ERRORS = "errors"
FIELDS = (
    *("account_alerts", "account_review_update", "account_settings_update", "account_update"),
    *("business_capability_update", "business_status_update", "business_username_updates"),
    *("partner_solutions", "payment_configuration_update", "phone_number_name_update"),
    *("phone_number_quality_update", "security"),
)
_SUBJECTS = ("display_phone_number", "phone_number")


@processor(*FIELDS, ERRORS, name="whatsapp_accounts", batch=True)
def keep_accounts(events: Sequence[Event], db: Connection) -> None:
    """Keep a row for each account and field, and each phone number that the field is about."""
    newest: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    for event, update in whatsapp.updates(events):
        if update.waba_id is None:
            raise Discard("id is missing")
        value = update.only(ERRORS) if event.type == ERRORS else update.value
        at = update.sent_at or event.occurred_at
        state = (at or LONG_AGO, event.event_id, at, whatsapp.json_text("value", value))
        key = (update.waba_id, event.type, _subject(update))
        newest[key] = max(newest.get(key, state), state, key=lambda one: one[:2])
    rows = [(*key, *state) for key, state in sorted(newest.items())]
    if rows:
        with discard_unstorable():
            db.execute(_KEEP, _parameters(rows))


def _subject(update: Update) -> str:
    """Return the phone number that an update is about; empty: it is about the account."""
    told = (*(update.value.get(name) for name in _SUBJECTS), _receiving_number(update))
    read = (whatsapp.identifier("subject", value) for value in told)
    return next((number for number in read if number), "")


def _receiving_number(update: Update) -> Any:
    return mapping(update.value.get("metadata")).get("display_phone_number")


def _parameters(rows: Sequence[tuple[Any, ...]]) -> dict[str, str]:
    waba_ids, fields, subjects, _, event_ids, times, values = zip(*rows, strict=True)
    return {
        "waba_ids": arrays.literal(waba_ids),
        "fields": arrays.literal(fields),
        "subjects": arrays.literal(subjects),
        "values": arrays.literal(values),
        "times": arrays.literal(times),
        "event_ids": arrays.literal(event_ids),
    }


def _place(row: str) -> str:
    return f"""coalesce({row}.at, '{LONG_AGO}'), {row}.event_id COLLATE "C\""""


_KEEP = statement(
    f"""
    INSERT INTO ingest.whatsapp_accounts AS present
        (waba_id, field, subject, value, at, event_id)
    SELECT * FROM unnest(CAST(:waba_ids AS text[]), CAST(:fields AS text[]),
                         CAST(:subjects AS text[]), CAST(:values AS jsonb[]),
                         CAST(:times AS timestamptz[]), CAST(:event_ids AS text[]))
    ON CONFLICT (waba_id, field, subject) DO UPDATE
    SET value = excluded.value, at = excluded.at, event_id = excluded.event_id
    WHERE ({_place("excluded")}) > ({_place("present")})
    """
)
