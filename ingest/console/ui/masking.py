"""What a viewer does not see where `INGEST_CONSOLE_MASK_VIEWERS` is set: bodies and phone numbers,
also not by searching for them."""

import re
from dataclasses import replace
from datetime import datetime

from ingest import phones, query
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.query import Problem, Query
from ingest.settings import Settings
from ingest.store.search.filters import EventFilter

HIDDEN = "(hidden from viewers)"
_NOT_FOR_VIEWERS = "Viewers do not search in bodies or by phone number here."
_MESSAGE_ID = re.compile(r"wamid\.[\w+/=-]+")
"""WhatsApp's ids of messages hold the number, in base64."""
# By its version and variant: an id that somebody has made from a number has neither.
_UUID = r"(?P<uuid>\b[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b)"
_UUID_OR_PHONE = re.compile(f"{_UUID}|{phones.IN_TEXT.pattern}", re.IGNORECASE)
_ALL_BUT_TWO_DIGITS = re.compile(r"[+\d](?=(?:\D*\d){2})")


def applies(settings: Settings, identity: Identity) -> bool:
    """Whether bodies and phone numbers are kept from who asks."""
    return settings.console_mask_viewers and identity.role is not Role.OPERATOR


def parse(settings: Settings, identity: Identity, text: str, *, now: datetime) -> Query:
    """A search, without what would tell what is masked."""
    found = query.parse(text, now=now)
    if not applies(settings, identity):
        return found
    allowed = _allowed(found.selection)
    if allowed == found.selection:
        return found
    told = Problem(text=text, position=0, message=_NOT_FOR_VIEWERS)
    return replace(found, selection=allowed, problems=(*found.problems, told))


def mask_phones(text: str) -> str:
    """Return a text without what could be phone numbers, but for their last two digits.

    Of the ids of messages, which hold a number, the last four characters stay.
    """
    hidden = _MESSAGE_ID.sub(lambda match: f"wamid.••••{match[0][-4:]}", text)
    return _UUID_OR_PHONE.sub(
        lambda match: match["uuid"] or _ALL_BUT_TWO_DIGITS.sub("•", match[0]), hidden
    )


def _allowed(selection: EventFilter) -> EventFilter:
    about = tuple((kind, value) for kind, value in selection.about if kind != "phone")
    # By patterns with digits somebody could guess a number in a type, one digit after another.
    types = tuple(each for each in selection.types if not _guesses(each))
    return replace(selection, about=about, types=types, fields=(), search=None)


def _guesses(pattern: str) -> bool:
    return "*" in pattern and any(character.isdigit() for character in pattern)
