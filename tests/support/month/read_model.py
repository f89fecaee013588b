"""The rows of the read model that these events come to, block by block."""

from tests.support.month.bodies import TOTAL, WORDS
from tests.support.month.numbered import (
    CONTACT_CREATED,
    CONVERSATION_CREATED,
    NAMED,
    ORDER_CREATED,
    ORDER_UPDATED,
    RECEIVED,
    STATUSES,
    STATUSES_ALONE,
    WHATSAPP,
    WHATSAPP_STATUSES,
    message_id,
    moment,
    number_at,
    phone,
    whatsapp_id,
    within,
)

_PHONE, _MESSAGE, _WHATSAPP = phone("conversation"), message_id("message"), whatsapp_id("message")
_HAS_STATUS = f"p < {len(STATUSES)}"
_LAST_STATUS = "CASE mod(b + p + 35, 3) WHEN 0 THEN 'sent' WHEN 1 THEN 'delivered' ELSE 'read' END"


def _at(place: str) -> str:
    """SQL: when the event of this block at a place was received."""
    return f"to_timestamp({moment(number_at(place))} / 1000.0)"


_STATUS_EVENT = f"'message.status.updated:' || {_MESSAGE} || ':' || {_LAST_STATUS}"
_SHIPPED = f"{ORDER_UPDATED.start + 1} + mod(p - {ORDER_CREATED.start}, 2) * 2"

FILL = f"""
    WITH named AS MATERIALIZED ({NAMED}), received AS (
        INSERT INTO ingest.messages (
            message_id, conversation_id, from_number, to_number, type, body, timestamp,
            received_event_id, status, status_at, status_event_id, last_event_at, last_event_id
        )
        SELECT {_MESSAGE}, conversation, {_PHONE}, '966500000001', 'text', {WORDS}, at, name,
               CASE WHEN {_HAS_STATUS} THEN {_LAST_STATUS} END,
               CASE WHEN {_HAS_STATUS} THEN {_at("p + 35")} END,
               CASE WHEN {_HAS_STATUS} THEN {_STATUS_EVENT} END, at, name
        FROM named WHERE {within(RECEIVED)}
        UNION ALL
        SELECT {message_id("'alone' || i")}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, status, at,
               name, at, name
        FROM named WHERE {within(STATUSES_ALONE)}
    ), talks AS (
        INSERT INTO ingest.conversations (
            conversation_id, contact_id, phone_number, created_at, created_event_id, status,
            updated_at, last_event_at, last_event_id
        )
        SELECT conversation, conversation, {_PHONE}, at, name, 'closed', {_at("62")}, at, name
        FROM named WHERE p = {CONVERSATION_CREATED}
    ), persons AS (
        INSERT INTO ingest.contacts (
            contact_id, name, phone, email, is_favorite, created_at, versions, last_event_at,
            last_event_id
        )
        SELECT conversation, 'Customer ' || conversation, {_PHONE},
               'customer' || conversation || '@example.com', mod(b, 9) = 0, at,
               jsonb_build_object('name', stamp || ' ' || name), at, name
        FROM named WHERE p = {CONTACT_CREATED}
    ), ordered AS (
        INSERT INTO ingest.orders (
            order_id, conversation_id, total, currency, created_at, created_event_id, status,
            updated_at, last_event_at, last_event_id
        )
        SELECT order_id, conversation, {TOTAL}, 'SAR', at, name, 'shipped', {_at(_SHIPPED)}, at,
               name
        FROM named WHERE {within(ORDER_CREATED)}
    ), changed AS (
        INSERT INTO ingest.order_status_changes (
            order_id, event_id, old_status, new_status, updated_at
        )
        SELECT order_id, name, CASE mod(p, 2) WHEN 1 THEN 'pending' ELSE 'accepted' END,
               CASE mod(p, 2) WHEN 1 THEN 'accepted' ELSE 'shipped' END, at
        FROM named WHERE {within(ORDER_UPDATED)}
    ), whatsapp AS (
        INSERT INTO ingest.whatsapp_messages (
            message_id, direction, waba_id, phone_number_id, contact_phone, type, text, timestamp,
            received_event_id, last_event_at, last_event_id
        )
        SELECT {_WHATSAPP}, 'inbound', '102290129340398', '106540352242922', {_PHONE}, 'text',
               {WORDS}, at, name, at, name
        FROM named WHERE {within(WHATSAPP)}
    ), whatsapp_people AS (
        INSERT INTO ingest.whatsapp_contacts (
            contact_id, phone, name, last_event_at, last_event_id
        )
        SELECT {_PHONE}, {_PHONE}, 'Customer ' || conversation, at, name
        FROM named WHERE p = {CONVERSATION_CREATED}
    ), whatsapp_names AS (
        INSERT INTO ingest.whatsapp_identities (
            identity, contact_id, phone, name, versions, last_event_at, last_event_id
        )
        SELECT {_PHONE}, {_PHONE}, {_PHONE}, 'Customer ' || conversation, '{{}}', at, name
        FROM named WHERE p = {CONVERSATION_CREATED}
    )
    INSERT INTO ingest.whatsapp_message_statuses (
        message_id, event_id, status, at, recipient_phone
    )
    SELECT {_WHATSAPP}, name, status, at, {_PHONE} FROM named WHERE {within(WHATSAPP_STATUSES)}
"""
"""Stores the rows of the events from `first` to `last`, which are whole blocks."""
