"""What a viewer does not see where `INGEST_CONSOLE_MASK_VIEWERS` is set: bodies and phone numbers,
also not by searching for them."""

from dataclasses import replace
from datetime import datetime

from ingest import query
from ingest.console.access.identity import Identity, Role
from ingest.query import Problem, Query
from ingest.settings import Settings
from ingest.store.selection import Selection

_NOT_FOR_VIEWERS = "Viewers do not search in bodies or by phone number here."


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


def _allowed(selection: Selection) -> Selection:
    about = tuple((kind, value) for kind, value in selection.about if kind != "phone")
    return replace(selection, about=about, fields=(), search=None)
