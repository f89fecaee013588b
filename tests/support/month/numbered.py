"""Which events there are: numbered, a hundred to a block, alike in each block.

An event's number tells its time, its type, what it is about and what became of it. So each table is
filled by itself, in any order, and all of them agree.
"""

BLOCK = 100
"""Events of a block."""
_STEP, _BACK = 37, 73
"""Event `i` of a block has the place `i * 37 % 100`; place `p` has event `p * 73 % 100`. So
neighbours in time are unlike."""

# A place each in a block. What changes is said after what it changes, as far as that goes.
RECEIVED = range(35)
STATUSES = range(35, 55)
STATUSES_ALONE = range(55, 59)
"""Of messages that nobody told of otherwise."""
CONVERSATION_CREATED = 59
CONVERSATION_UPDATED = range(60, 63)
CONTACT_CREATED, CONTACT_UPDATED = 63, 64
ORDER_CREATED = range(65, 67)
ORDER_UPDATED = range(67, 71)
WHATSAPP = range(71, 81)
WHATSAPP_STATUSES = range(81, 86)
SHOPIFY = range(86, 91)
GITHUB = range(91, 95)
STRIPE = range(95, 99)
OTHERS = 99
"""In one block of five an event that no processor takes, else one more of Stripe's."""

LARGE_CONVERSATION = 1
"""It has one message of each block."""
REPEATED_EVERY, CONFLICT_EVERY = 33, 990


def within(places: range) -> str:
    """SQL: the place is one of these."""
    return f"p BETWEEN {places.start} AND {places.stop - 1}"


def number_at(place: str) -> str:
    """SQL: the number of the event of this block that has a place."""
    return f"(b * {BLOCK} + mod(({place}) * {_BACK}, {BLOCK}))"


def phone(conversation: str) -> str:
    """SQL: the number of whom a conversation is with."""
    return f"('9665' || lpad(mod(({conversation}) * 7919, 100000000)::text, 8, '0'))"


def message_id(number: str) -> str:
    """SQL: what the sender calls a message."""
    return f"('wamid.HBgM' || upper(md5('m' || ({number}))))"


def whatsapp_id(number: str) -> str:
    """SQL: what Meta calls a message."""
    return f"('wamid.HBgLw' || upper(md5('w' || ({number}))))"


def moment(number: str) -> str:
    """SQL: when an event was received, in milliseconds."""
    return f"(%(start)s + (({number}) * %(span)s::numeric / %(total)s)::bigint)"


def uuid7(milliseconds: str, digest: str) -> str:
    """SQL: the id of what was received then."""
    return (
        f"(lpad(to_hex({milliseconds}), 12, '0') || '7' || substr({digest}, 1, 3) || '8'"
        f" || substr({digest}, 5, 15))::uuid"
    )


_SOURCE = f"""CASE WHEN {within(range(71))} THEN 'awalchat'
    WHEN {within(range(71, 86))} THEN 'whatsapp' WHEN {within(SHOPIFY)} THEN 'shopify'
    WHEN {within(GITHUB)} THEN 'github'
    WHEN p = {OTHERS} AND mod(b, 5) = 0 THEN 'awalchat' ELSE 'stripe' END"""
_TYPE = f"""CASE WHEN {within(RECEIVED)} THEN 'message.received'
    WHEN {within(STATUSES)} OR {within(STATUSES_ALONE)} THEN 'message.status.updated'
    WHEN p = {CONVERSATION_CREATED} THEN 'conversation.created'
    WHEN {within(CONVERSATION_UPDATED)} THEN 'conversation.updated'
    WHEN p = {CONTACT_CREATED} THEN 'contact.created'
    WHEN p = {CONTACT_UPDATED} THEN 'contact.updated'
    WHEN {within(ORDER_CREATED)} THEN 'order.created'
    WHEN {within(ORDER_UPDATED)} THEN 'order.status.updated'
    WHEN {within(WHATSAPP)} THEN 'messages' WHEN {within(WHATSAPP_STATUSES)} THEN 'statuses'
    WHEN {within(SHOPIFY)} THEN 'orders/create' WHEN {within(GITHUB)} THEN 'push'
    WHEN {within(STRIPE)} THEN 'charge.succeeded'
    WHEN mod(b, 5) = 0 THEN 'tag.added' ELSE 'invoice.paid' END"""

# n: of 10,000, what becomes of the event's first job. conversation: of a message. message: the
# number of what is said, or whose status it is. status: of a message's.
_NUMBERED = f"""
    SELECT i, b, p, hash, ms, {uuid7("ms", "hash")} AS id, to_timestamp(ms / 1000.0) AS at,
           to_char(to_timestamp(ms / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
               AS stamp,
           mod(('x' || substr(hash, 17, 8))::bit(32)::bigint, 10000)::int AS n,
           {_SOURCE} AS source, {_TYPE} AS type,
           CASE WHEN p = 0 THEN {LARGE_CONVERSATION}
                WHEN {within(RECEIVED)} OR {within(WHATSAPP)}
                THEN 1 + mod(('x' || substr(hash, 9, 8))::bit(32)::bigint,
                             %(total)s / {BLOCK})
                ELSE b + 1 END AS conversation,
           CASE WHEN {within(RECEIVED)} THEN b * 35 + p
                WHEN {within(STATUSES)} THEN b * 35 + p - 35
                WHEN {within(WHATSAPP)} THEN b * 10 + p - 71
                WHEN {within(WHATSAPP_STATUSES)} THEN b * 10 + p - 81 END AS message,
           CASE mod(b + p, 3) WHEN 0 THEN 'sent' WHEN 1 THEN 'delivered' ELSE 'read' END AS status,
           CASE WHEN {within(ORDER_CREATED)} THEN b * 2 + p - 64
                WHEN {within(ORDER_UPDATED)} THEN b * 2 + (p - 67) / 2 + 1 END AS order_id
    FROM (
        SELECT i, i / {BLOCK} AS b, mod(i * {_STEP}, {BLOCK})::int AS p, md5(i::text) AS hash,
               {moment("i")} AS ms
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
    ) AS placed
"""

_NAME = f"""CASE
    WHEN {within(RECEIVED)} THEN 'message.received:' || {message_id("message")}
    WHEN {within(STATUSES)}
    THEN 'message.status.updated:' || {message_id("message")} || ':' || status
    WHEN {within(STATUSES_ALONE)}
    THEN 'message.status.updated:' || {message_id("'alone' || i")} || ':' || status
    WHEN p = {CONVERSATION_CREATED} THEN 'conversation.created:' || conversation
    WHEN p = {CONTACT_CREATED} THEN 'contact.created:' || conversation
    WHEN {within(ORDER_CREATED)} THEN 'order.created:' || order_id
    WHEN {within(WHATSAPP)} THEN 'messages:' || {whatsapp_id("message")}
    WHEN {within(WHATSAPP_STATUSES)}
    THEN 'statuses:' || {whatsapp_id("message")} || ':' || status
    WHEN {within(SHOPIFY)} OR {within(GITHUB)} THEN md5(hash)::uuid::text
    WHEN source = 'stripe' THEN 'evt_' || substr(hash, 1, 24)
    ELSE type || ':#' || hash || md5(hash) END"""

NAMED = f"SELECT numbered.*, {_NAME} AS name FROM ({_NUMBERED}) AS numbered"
"""The events from `first` to `last`; needs `start`, `span` and `total`, too."""
PARAMETERS = ("start", "span", "total", "first", "last")
