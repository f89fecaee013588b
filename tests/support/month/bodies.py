"""What the senders sent: each type's body as its documentation has it, with words in it."""

from tests.support.month.numbered import (
    CONVERSATION_CREATED,
    CONVERSATION_UPDATED,
    GITHUB,
    ORDER_CREATED,
    ORDER_UPDATED,
    RECEIVED,
    SHOPIFY,
    STATUSES,
    STATUSES_ALONE,
    WHATSAPP,
    WHATSAPP_STATUSES,
    message_id,
    phone,
    whatsapp_id,
    within,
)

_TEXT = (
    "where is my order please the parcel has not arrived yet thank you size colour black white"
    " refund delivery tomorrow address changed invoice discount paid twice card payment failed"
    " exchange return shop open friday gift wrapped shirt shoes bag small large medium"
    " مرحبا أحتاج مساعدة في طلبي شكرا متى يصل الطلب هل المقاس متوفر أين الفاتورة السعر كم التوصيل"
)
_WORDS = _TEXT.split()
WORDS = f"""(
    SELECT string_agg(('{{{",".join(_WORDS)}}}'::text[])[
        1 + mod(get_byte(decode(hash, 'hex'), place) + place, {len(_WORDS)})
    ], ' ') FROM generate_series(0, 4 + mod(i, 11)::int) AS place
)"""
"""SQL: 5 to 15 words, by the event's digest."""
TOTAL = "(10 + mod(b * 7 + p, 4990) + mod(b, 100) / 100.0)::numeric(10, 2)"
"""SQL: what an order comes to."""
_SECONDS = "ms / 1000"


def _object(**fields: str) -> str:
    """SQL: an object of these fields, each of them SQL."""
    named = (f"'{name}', {value}" for name, value in fields.items())
    return f"json_build_object({', '.join(named)})"


def _list(*elements: str) -> str:
    return f"json_build_array({', '.join(elements)})"


def _shop(**data: str) -> str:
    return _object(event="type", timestamp="stamp", data=_object(**data))


def _meta(**value: str) -> str:
    metadata = _object(display_phone_number="'15550783881'", phone_number_id="'106540352242922'")
    told = _object(messaging_product="'whatsapp'", metadata=metadata, **value)
    change = _object(value=told, field="'messages'")
    entry = _object(id="'102290129340398'", changes=_list(change))
    return _object(object="'whatsapp_business_account'", entry=_list(entry))


_PHONE, _MESSAGE, _WHATSAPP = phone("conversation"), message_id("message"), whatsapp_id("message")
_EMAIL = "'customer' || conversation || '@example.com'"
_CUSTOMER = "'Customer ' || conversation"
_BODIES = {
    within(RECEIVED): _shop(
        message_id=_MESSAGE,
        conversation_id="conversation",
        **{"from": _PHONE},
        to="'966500000001'",
        type="'text'",
        body=WORDS,
        timestamp="stamp",
    ),
    within(STATUSES): _shop(message_id=_MESSAGE, status="status", timestamp="stamp"),
    within(STATUSES_ALONE): _shop(
        message_id=message_id("'alone' || i"), status="status", timestamp="stamp"
    ),
    f"p = {CONVERSATION_CREATED}": _shop(
        conversation_id="conversation",
        contact_id="conversation",
        phone_number=_PHONE,
        created_at="stamp",
    ),
    within(CONVERSATION_UPDATED): _shop(
        conversation_id="conversation",
        status="(ARRAY['active', 'unassigned', 'closed'])[p - 59]",
        updated_at="stamp",
    ),
    "starts_with(type, 'contact.')": _shop(
        id="conversation",
        name=_CUSTOMER,
        phone=_PHONE,
        email=_EMAIL,
        is_favorite="mod(b, 9) = 0",
        created_at="stamp",
    ),
    within(ORDER_CREATED): _shop(
        order_id="order_id",
        conversation_id="conversation",
        status="'pending'",
        total=TOTAL,
        currency="'SAR'",
        vip="mod(b, 40) = 0",
        items=_list(
            _object(sku="'A-' || mod(b, 900)", quantity="1 + mod(b, 3)", name=WORDS),
            _object(sku="'B-' || mod(b, 700)", quantity="1"),
        ),
        created_at="stamp",
    ),
    within(ORDER_UPDATED): _shop(
        order_id="order_id",
        old_status="CASE mod(p, 2) WHEN 1 THEN 'pending' ELSE 'accepted' END",
        new_status="CASE mod(p, 2) WHEN 1 THEN 'accepted' ELSE 'shipped' END",
        updated_at="stamp",
    ),
    within(WHATSAPP): _meta(
        contacts=_list(_object(profile=_object(name=_CUSTOMER), wa_id=_PHONE)),
        messages=_list(
            _object(
                **{"from": _PHONE},
                id=_WHATSAPP,
                timestamp=f"({_SECONDS})::text",
                type="'text'",
                text=_object(body=WORDS),
            )
        ),
    ),
    within(WHATSAPP_STATUSES): _meta(
        statuses=_list(
            _object(
                id=_WHATSAPP,
                status="status",
                timestamp=f"({_SECONDS})::text",
                recipient_id=_PHONE,
            )
        )
    ),
    within(SHOPIFY): _object(
        id="5000000000 + b * 5 + p",
        name="'#' || (b * 5 + p)",
        updated_at="stamp",
        total_price=f"{TOTAL}::text",
        currency="'SAR'",
        phone=f"'+' || {_PHONE}",
        email=_EMAIL,
        customer=_object(id="conversation"),
        line_items=_list(_object(sku="'A-' || mod(b, 900)", title=WORDS, quantity="1")),
        note=WORDS,
    ),
    within(GITHUB): _object(
        ref="'refs/heads/main'",
        after="hash",
        repository=_object(full_name="'shop/backend'"),
        commits=_list(_object(id="hash", message=WORDS)),
        sender=_object(login="'developer' || mod(b, 30)"),
    ),
    "source = 'stripe'": _object(
        id="name",
        object="'event'",
        created=_SECONDS,
        type="type",
        data=_object(
            object=_object(
                id="'ch_' || substr(hash, 1, 16)",
                amount="1000 + mod(b, 90000)",
                currency="'sar'",
                customer="'cus_' || conversation",
                description=WORDS,
            )
        ),
    ),
}
BODY = f"""convert_to((CASE
    {" ".join(f"WHEN {condition} THEN {body}" for condition, body in _BODIES.items())}
    ELSE {_shop(id="i", tag=WORDS)} END)::text, 'UTF8')"""
"""SQL: the body of an event of `numbered.NAMED`."""
