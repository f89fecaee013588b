"""What Twilio tells of, in a few words."""

from collections.abc import Mapping
from typing import Any

from ingest.sources.base import Envelope
from ingest.sources.titles import Part, Title, person, phone, private, shown, title

_RECEIVED = ("received", "receiving")
_NAMES = {"voice": "Call", "recording": "Recording", "transcription": "Transcription"}


def of_event(kind: str, envelope: Envelope) -> Title | None:
    """Return the title of an event of a message, a call or a recording; None: it is of something
    else, or what it needs is not in it."""
    fields = envelope.fields
    status = shown(envelope.type.partition(".")[2].replace("-", " "))
    if kind == "messaging":
        return _message(fields, status)
    name = _NAMES.get(kind)
    if name is None:
        return None
    ends = (phone(fields.get("From")), " to ", phone(fields.get("To")))
    return title(f"{name} ", status, ", ", *ends) or title(f"{name} ", status)


def _message(fields: Mapping[str, Any], status: Part | None) -> Title | None:
    if status is None or status.text not in _RECEIVED:
        return title("Status ", status, ", to ", phone(fields.get("To"))) or title(
            "Status ", status
        )
    sender = person(fields.get("ProfileName"), fields.get("WaId") or fields.get("From"))
    text = private(fields.get("Body"))
    return title("Message from ", sender, ": ", text) or title("Message from ", sender)
