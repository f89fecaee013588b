"""The statuses of messages, and how far each has got.

A status only moves forward; `failed` wins over sent and loses to delivered and read. A voice
message is played after it is read; of one that its sender deleted nothing else counts. What we do
not know is kept as it was sent, and loses to what we know.
"""

RANKS = {"sent": 2, "failed": 3, "delivered": 4, "read": 5, "played": 6, "deleted": 7}
NO_STATUS = 0
_UNKNOWN = 1

RANK_SQL = (
    "CASE lower({row}.status) "
    + " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in RANKS.items())
    + f" ELSE {_UNKNOWN} END"
)
"""SQL for the rank of a row's status; `{row}` stands for the row."""
LAST_EVENT_RANK_SQL = (
    f"CASE WHEN {{row}}.status_event_id IS NULL THEN {NO_STATUS} ELSE {RANK_SQL} END"
)
"""SQL for the rank of a row's last event."""


def rank(status: str) -> int:
    """Return the rank of a status as `known` spells it."""
    return RANKS.get(status, _UNKNOWN)


def known(spelled: str) -> str:
    """Return a status that we know, however its sender capitalises it; any other as it is."""
    status = spelled.strip().lower()
    return status if status in RANKS else spelled
