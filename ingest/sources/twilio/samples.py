"""Forms as Twilio sends them, for `ingest send`."""

from datetime import datetime
from email.utils import format_datetime
from random import Random
from urllib.parse import urlencode

_MESSAGE = ("received", "queued", "sent", "delivered", "undelivered", "failed", "read")
_CALL = ("initiated", "ringing", "in-progress", "completed", "busy", "no-answer", "failed")

TYPES: tuple[str, ...] = (
    *(f"messaging.{status}" for status in _MESSAGE),
    *(f"voice.{status}" for status in _CALL),
    "recording.completed",
)
"""The event types of which there are samples."""

_OURS = "+15550783881"


def make(event_type: str, random: Random, now: datetime) -> bytes:
    """Return the form of a new event of `event_type` that happened `now`."""
    kind, _, status = event_type.partition(".")
    theirs = f"+9665{random.randrange(10**8):08d}"
    fields = {"AccountSid": f"AC{random.getrandbits(128):032x}"}
    if kind == "messaging":
        fields |= {"MessageSid": f"SM{random.getrandbits(128):032x}"}
        if status == "received":
            fields |= {"SmsStatus": status, "From": theirs, "To": _OURS, "Body": "مرحباً + 1 & 2"}
        else:
            fields |= {"MessageStatus": status, "From": _OURS, "To": theirs}
    elif kind == "recording":
        fields |= {"RecordingSid": f"RE{random.getrandbits(128):032x}", "RecordingStatus": status}
    elif kind == "voice":
        fields |= {"CallSid": f"CA{random.getrandbits(128):032x}", "CallStatus": status}
        fields |= {"From": theirs, "To": _OURS, "Timestamp": format_datetime(now)}
        fields |= {"CallbackSource": "call-progress-events"}
    else:
        fields |= {"EventType": event_type, "Sid": f"XX{random.getrandbits(128):032x}"}
    return urlencode(fields).encode()
