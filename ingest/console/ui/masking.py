"""What viewers do not see where `INGEST_CONSOLE_MASK_VIEWERS` is set.

Bodies and phone numbers are hidden, and nobody finds them by searching for them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from ingest import phones, query
from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.query import Problem, Query
from ingest.settings import Settings
from ingest.sources.titles import Title
from ingest.store.bulk.replay import DISCARD, REPLAY, Operation
from ingest.store.copies import Copy
from ingest.store.exports import EXPORT
from ingest.store.failures.comparison import CommonField
from ingest.store.failures.records import Note
from ingest.store.pipeline.breakers import BreakerRecord
from ingest.store.pipeline.processors import ProcessorRecord
from ingest.store.reports.audit_log import Action
from ingest.store.reports.event_detail import AttemptRecord, JobRecord
from ingest.store.reports.newest_dead import NewestDead
from ingest.store.reports.refused_requests import Refusal
from ingest.store.search.events import ListedEvent
from ingest.store.search.filters import EventFilter
from ingest.store.search.related import is_bigint
from ingest.store.views import View

HIDDEN = "(hidden from viewers)"
_OF_SEARCHES = (REPLAY, DISCARD, EXPORT, "save view", "rename view", "delete view")
_FORBIDDEN_SEARCH = "Viewers cannot search in bodies or by phone number."
_MESSAGE_ID = re.compile(r"wamid\.[\w+/=-]+")
"""WhatsApp's message ids contain the number, in base64."""
# Its version and variant tell a UUID from an id that somebody made from a phone number.
_UUID = r"(?P<uuid>\b[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b)"
_UUID_OR_PHONE = re.compile(f"{_UUID}|{phones.IN_TEXT.pattern}", re.IGNORECASE)
_ALL_BUT_TWO_DIGITS = re.compile(r"[+\d](?=(?:\D*\d){2})")


def applies(settings: Settings, identity: Identity) -> bool:
    """Return whether bodies and phone numbers are hidden from somebody."""
    return settings.console_mask_viewers and identity.role is not Role.OPERATOR


def parse(settings: Settings, identity: Identity, text: str, *, now: datetime) -> Query:
    """Parse a search, without the conditions that would reveal what is hidden."""
    parsed = query.parse(text, now=now)
    if not applies(settings, identity):
        return parsed
    allowed = _allowed(parsed.selection)
    if allowed == parsed.selection:
        return parsed
    problem = Problem(text=text, position=0, message=_FORBIDDEN_SEARCH)
    return replace(parsed, selection=allowed, problems=(*parsed.problems, problem))


def shows_view(view: View) -> bool:
    """Return whether a saved view names nothing that is hidden."""
    selection = query.parse(view.query, now=view.made_at).selection
    return _allowed(selection) == selection and len(unhidden((view.name, view.query))) == 2


def unhidden(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts in which nothing could be a phone number."""
    return tuple(text for text in texts if mask_phones(text) == text)


def mask_phones(text: str) -> str:
    """Return a text with everything hidden that could be a phone number.

    The last two digits stay. A message id, which contains a number, keeps its last four characters.
    """
    hidden = _MESSAGE_ID.sub(lambda match: f"wamid.••••{match[0][-4:]}", text)
    return _UUID_OR_PHONE.sub(
        lambda match: match["uuid"] or _ALL_BUT_TWO_DIGITS.sub("•", match[0]), hidden
    )


def hide(text: str | None) -> str | None:
    """Return the placeholder of a text; None stays None."""
    return None if text is None else HIDDEN


def title(made: Title | None, *, masked: bool) -> Title | None:
    """Return the title of an event. A masked one keeps ids, states and amounts, and of a number the
    last two digits."""
    return made.masked(mask_phones) if masked and made is not None else made


def events(listed: Sequence[ListedEvent], *, masked: bool) -> tuple[ListedEvent, ...]:
    """Return a list's events. A masked one keeps the error's type and not its message."""
    if not masked:
        return tuple(listed)
    return tuple(
        replace(
            event,
            event_id=mask_phones(event.event_id),
            type=mask_phones(event.type),
            error=None if event.error is None else event.error.partition(":")[0],
            title=title(event.title, masked=True),
        )
        for event in listed
    )


def job(record: JobRecord, *, masked: bool) -> JobRecord:
    """Return a job. Its masked attempts keep no text that an error or an operator wrote."""
    if not masked:
        return record
    return replace(record, attempts=tuple(map(_masked_attempt, record.attempts)))


def _masked_attempt(attempt: AttemptRecord) -> AttemptRecord:
    return replace(
        attempt,
        error_message=hide(attempt.error_message),
        traceback=hide(attempt.traceback),
        replay_reason=hide(attempt.replay_reason),
    )


def copy(record: Copy, *, masked: bool) -> Copy:
    """Return a copy of an event. A masked one keeps no reason."""
    return replace(record, reason=hide(record.reason)) if masked else record


def note(written: Note, *, masked: bool) -> Note:
    """Return a note about a failure. A masked one keeps no text."""
    return replace(written, text=HIDDEN) if masked else written


def newest_dead(letters: Mapping[str, NewestDead], *, masked: bool) -> Mapping[str, NewestDead]:
    """Return the newest dead letters of processors. Masked ones keep no message."""
    if not masked:
        return letters
    return {name: replace(letter, message=None) for name, letter in letters.items()}


def fields(common: Sequence[CommonField], *, masked: bool) -> tuple[CommonField, ...]:
    """Return what bodies have in common. Masked, only where."""
    if not masked:
        return tuple(common)
    return tuple(
        replace(field, path=mask_phones(field.path), value=hide(field.value)) for field in common
    )


def bulk_action(record: Operation, *, masked: bool) -> Operation:
    """Return a bulk action. A masked one keeps nothing that an operator searched for."""
    if not masked:
        return record
    return replace(record, selection=_hidden(record.selection), reason=hide(record.reason))


def _hidden(selection: EventFilter) -> EventFilter:
    return replace(
        selection,
        event_ids=tuple(map(mask_phones, selection.event_ids)),
        types=tuple(map(mask_phones, selection.types)),
        about=tuple((kind, HIDDEN) for kind, _ in selection.about),
        fields=tuple((path, HIDDEN) for path, _ in selection.fields),
        comparisons=(),
        search=HIDDEN if selection.texts or selection.comparisons else None,
        excluded=tuple(map(_hidden, selection.excluded)),
    )


def action(record: Action, *, masked: bool) -> Action:
    """Return an entry of the audit log. A target may be what was searched for."""
    if not masked:
        return record
    is_search = record.action in _OF_SEARCHES
    target = HIDDEN if is_search else mask_phones(record.target)
    return replace(record, target=target, reason=hide(record.reason))


def processors(records: Sequence[ProcessorRecord], *, masked: bool) -> tuple[ProcessorRecord, ...]:
    """Return processors. Masked ones keep no reason of a pause, and no error's message."""
    if not masked:
        return tuple(records)
    return tuple(
        replace(
            record, pause_reason=hide(record.pause_reason), breaker=masked_breaker(record.breaker)
        )
        for record in records
    )


def masked_breaker(breaker: BreakerRecord | None) -> BreakerRecord | None:
    """Return a breaker without the message of its last error."""
    if breaker is None:
        return None
    return replace(breaker, error_message=hide(breaker.error_message))


def refusals(samples: Sequence[Refusal], *, masked: bool) -> tuple[Refusal, ...]:
    """Return refused requests. Their paths and headers can hold anything."""
    if not masked:
        return tuple(samples)
    return tuple(
        replace(
            sample,
            source=mask_phones(sample.source),
            detail={name: mask_phones(value) for name, value in sample.detail.items()},
            steps=tuple(
                replace(step, sentence=mask_phones(step.sentence)) for step in sample.steps
            ),
        )
        for sample in samples
    )


def _allowed(selection: EventFilter) -> EventFilter:
    about = tuple(
        (kind, value)
        for kind, value in selection.about
        if not (kind == "phone" or (kind == "contact" and _may_be_hidden(value)))
    )
    # With digits in a pattern somebody could guess a number in a type, digit by digit.
    types = tuple(pattern for pattern in selection.types if not _can_guess(pattern))
    excluded = tuple(alone for alone in selection.excluded if _allowed(alone) == alone)
    return replace(
        selection,
        about=about,
        types=types,
        fields=(),
        comparisons=(),
        search=None,
        excluded=excluded,
    )


def _may_be_hidden(contact: str) -> bool:
    """Return whether a contact's id may be a name, an address or a number that a body holds."""
    return not is_bigint(contact) or phones.IN_TEXT.search(contact) is not None


def _can_guess(pattern: str) -> bool:
    return "*" in pattern and any(character.isdigit() for character in pattern)
