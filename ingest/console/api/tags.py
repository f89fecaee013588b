"""How the document groups operations, and what stands for something in their paths."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

TAGS: Mapping[str, str] = MappingProxyType(
    {
        "overview": "What arrives, what becomes of it, and what is behind.",
        "events": "Events, with their deliveries, jobs and attempts.",
        "deliveries": "Requests as they were received.",
        "jobs": "One event for one processor.",
        "bulk-actions": "Replays and discards of many events, and how far they have got.",
        "failures": "What fails in one way, as a record: open, acknowledged, resolved or muted.",
        "rejected": "Deliveries without an event.",
        "refusals": "Requests that were not stored.",
        "processors": "The functions that work on events.",
        "sources": "The senders, their keys, and test events of them.",
        "entities": "All about one order, conversation, contact, message or phone number.",
        "views": "Searches that are kept under a name.",
        "alerts": "What is told to people, and the channels by which.",
        "retention": "What is removed at which age.",
        "erasures": "Erasing persons. For operators.",
        "audit-log": "Who did what, and why.",
    }
)
"""The tags, in the order of the document."""

_TAG_OF = {
    "traffic": "overview",
    "stats": "overview",
    "search-words": "views",
    "alert-channels": "alerts",
    "test-event": "sources",
}
"""The tags of paths that begin with another word."""

_EVENT = ("The event's id.", "0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f")
PARAMETERS: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "/alert-channels/name": ("The channel's name.", "oncall"),
        "/alerts/id": ("The alert's number.", 3),
        "/bulk-actions/id": ("The bulk action's number.", 12),
        "/deliveries/id": ("The delivery's id.", "0199c8f0-2a10-7d44-8e02-5f6a7b8c9d0e"),
        "/entities/kind": ("What it is: `order`, `conversation`, `contact` and so on.", "order"),
        "/entities/{kind}/name": ("What it is called in addresses; `find_entity` says it.", "790"),
        "/erasures/id": ("The erasure's number.", 2),
        "/events/id": _EVENT,
        "/failures/id": ("The failure's number.", 12),
        "/jobs/id": ("The job's number.", 41),
        "/processors/name": ("The processor's name.", "orders"),
        "/refusals/id": (
            "What the answer has as `request_id`.",
            "0199c8f0-2a10-7d44-8e02-5f6a7b8c9d0e",
        ),
        "/views/id": ("The view's number.", 1),
    }
)
"""What a parameter of a path means, and an example: by what stands before it, and its name."""


def tag_of(path: str) -> str:
    """Return the tag of an operation by its path."""
    word = path.split("/")[1]
    return _TAG_OF.get(word, word)
