"""The likely cause of refusals, and what to do: from the reason, a diagnosis, and the keys' use."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from types import MappingProxyType

from ingest.sources.base import Source
from ingest.sources.diagnosis import Step
from ingest.store.reports.key_use import LastUse
from ingest.store.reports.refusal_counts import ReasonTotal
from ingest.store.reports.refused_requests import Refusal

MISMATCH = "signature_mismatch"
_MINUTE = timedelta(minutes=1)
"""When a key was used last is known to the minute, later to the hour."""
_SLUGS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelyCause:
    """Why requests are refused, most likely."""

    sentence: str
    advice: str
    """What to do; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known beside the counts."""

    sources: Mapping[str, Source]
    """Every source by its slug."""
    samples: Sequence[Refusal]
    """The last refused requests, the newest first."""
    uses: Sequence[LastUse]
    """The keys of the sources that refuse signatures."""


def of_refusals(total: ReasonTotal, facts: Facts) -> LikelyCause:
    """Return the likely cause of one source's refusals for one reason."""
    sample = sample_of(total, facts.samples)
    if total.reason in _SPECIAL:
        return _SPECIAL[total.reason](total, sample, facts)
    blamed = _blamed(sample)
    if blamed is not None and blamed.advice:
        return LikelyCause(sentence=blamed.sentence, advice=blamed.advice)
    if total.reason in _BY_REASON:
        return _BY_REASON[total.reason]
    return _of_status(total.status, total.sentence)


def of_rejected(source: str) -> LikelyCause:
    """Return the likely cause of signed deliveries that hold no event."""
    return LikelyCause(
        sentence="A key of the source signed it, and it is no event as the source reads bodies: its"
        " sender sends something else to this address too, or has changed its format.",
        advice=f"Look at a body. Correct the description or the code of {source or 'the source'};"
        " `ingest deliveries replay` then makes events of what was kept.",
    )


def sample_of(total: ReasonTotal, samples: Sequence[Refusal]) -> Refusal | None:
    """Return the newest sample of these refusals, one with a diagnosis if there is any."""
    own = [
        sample
        for sample in samples
        if sample.reason == total.reason and total.source in (sample.source, "")
    ]
    return next((sample for sample in own if sample.steps), own[0] if own else None)


def _blamed(sample: Refusal | None) -> Step | None:
    steps = sample.steps if sample else ()
    return next((step for step in reversed(steps) if not step.is_good), None)


def _mismatch(total: ReasonTotal, sample: Refusal | None, facts: Facts) -> LikelyCause:
    """Tell another secret from a changed body or a wrong time, and since when it is another."""
    blamed = _blamed(sample)
    if blamed is not None and blamed.part != "secret":
        return LikelyCause(sentence=blamed.sentence, advice=blamed.advice)
    advice = blamed.advice if blamed else "Compare the sender's secret with the one here."
    uses = [use for use in facts.uses if use.source == total.source and use.last_used_at]
    if not uses:
        return LikelyCause(
            sentence="The sender has another secret, and probably always had: no delivery of the"
            " source was accepted in the last 30 days.",
            advice=advice,
        )
    last = max(uses, key=lambda use: use.last_used_at or total.first_at)
    assert last.last_used_at is not None
    if last.last_used_at > total.last_at + _MINUTE:
        return LikelyCause(
            sentence=f"It seems to be over: the last one was refused at {moment(total.last_at)},"
            f" and deliveries that the key {last.key_id} signed are accepted since. Until then a"
            " sender had another secret, or a stranger invented signatures.",
            advice="Compare with the sender's dashboard whether it has sent them again.",
        )
    if last.last_used_at > total.first_at:
        return LikelyCause(
            sentence="Others of the source are accepted meanwhile, signed with the key"
            f" {last.key_id}: one of several senders has another secret, or a stranger invents"
            " signatures.",
            advice=f"See from which addresses they come. {advice}",
        )
    knows_keys = any(use.is_configured for use in facts.uses if use.source == total.source)
    if knows_keys and not last.is_configured:
        return LikelyCause(
            sentence=f"The secret was changed here and not at the sender: the key {last.key_id},"
            f" which signed its last accepted delivery at {moment(last.last_used_at)}, is none of"
            " the keys here any more.",
            advice="Set the old secret again, behind the new one, until the sender has the new one."
            f" {advice}",
        )
    return LikelyCause(
        sentence=f"The sender signs with another secret since about {moment(total.first_at)}: the"
        f" last delivery that was accepted, at {moment(last.last_used_at)}, had the key"
        f" {last.key_id}. It was changed at the sender, or a proxy changes bodies since.",
        advice=advice,
    )


def _unknown_source(_total: ReasonTotal, sample: Refusal | None, facts: Facts) -> LikelyCause:
    slugs = sorted(slug for slug, source in facts.sources.items() if source.secrets)
    listed = ", ".join(f"/webhooks/{slug}" for slug in slugs[:_SLUGS_SHOWN])
    advice = f"Correct the address at the sender: {listed or 'no source has a secret here'}."
    tried = sample.source if sample else ""
    if tried in facts.sources:
        variable = facts.sources[tried].variable("secrets")
        return LikelyCause(
            sentence=f"The source {tried} had no secret at the receiver, and without one its path"
            " is 404.",
            advice=f"Set {variable} for the receivers, and restart them.",
        )
    near = difflib.get_close_matches(tried, slugs, n=1)
    if near:
        return LikelyCause(
            sentence=f"The last one asked for /webhooks/{tried}: most likely /webhooks/{near[0]} is"
            " meant.",
            advice=advice,
        )
    asked = f"The last one asked for /webhooks/{tried}. " if tried else ""
    return LikelyCause(
        sentence=f"{asked}No source has that name: a wrong address at a sender, or a stranger who"
        " tries addresses.",
        advice=advice,
    )


def _not_found(_total: ReasonTotal, sample: Refusal | None, _facts: Facts) -> LikelyCause:
    path = sample.detail.get("path", "") if sample else ""
    asked = f"The last one was {path}. " if path else ""
    return LikelyCause(
        sentence=f"{asked}The receiver has only /webhooks/SOURCE: a wrong address at a sender, a"
        " proxy that changes paths, or a stranger who tries addresses.",
        advice="If a sender's address is among them, correct it there.",
    )


_Tell = Callable[[ReasonTotal, Refusal | None, Facts], LikelyCause]
_SPECIAL: Mapping[str, _Tell] = MappingProxyType(
    {MISMATCH: _mismatch, "unknown_source": _unknown_source, "not_found": _not_found}
)
_BY_REASON: Mapping[str, LikelyCause] = MappingProxyType(
    {
        "method_not_allowed": LikelyCause(
            sentence="A browser, a check of the address, or a sender that does not POST: deliveries"
            " are POSTs.",
            advice="Set the sender's method to POST; leave people's visits alone.",
        ),
        "signature_missing": LikelyCause(
            sentence="The request has no signature: a sender without a secret, another kind of"
            " sender, a proxy that takes the header away, or a stranger.",
            advice="Enter the secret at the sender, and see that it sends to the path of its own"
            " source.",
        ),
        "timestamp_outside_window": LikelyCause(
            sentence="The clocks of the sender and of the receiver differ, or something holds"
            " requests back.",
            advice="`ingest doctor` compares the clocks. Set both by NTP.",
        ),
        "body_hash_mismatch": LikelyCause(
            sentence="The body is not the one that was signed: something changed it on its way.",
            advice="Let what stands before the receiver pass bodies on byte for byte.",
        ),
        "body_too_large": LikelyCause(
            sentence="The sender's bodies are larger than is accepted.",
            advice="If such bodies are wanted, raise INGEST_MAX_BODY_BYTES, or the body_limit of"
            " the source's description.",
        ),
        "body_too_slow": LikelyCause(
            sentence="Bodies do not come whole in time: a slow line, or a stranger who holds"
            " connections. Most senders send again.",
            advice="If a sender's address is among them, raise INGEST_BODY_DEADLINE_S. For senders"
            " that do not send again: `ingest recover`.",
        ),
        "too_many_bodies": LikelyCause(
            sentence="More bodies were on their way than there is room for. Most senders send"
            " again.",
            advice="Start more receivers, or raise INGEST_MAX_INFLIGHT_BODY_BYTES. One address that"
            " has most of them is an attack. For senders that do not send again: `ingest recover`.",
        ),
        "backlog_full": LikelyCause(
            sentence="Deliveries come faster than PostgreSQL stores them. Senders send again.",
            advice="See to PostgreSQL's disk and locks; `ingest doctor` asks it.",
        ),
        "shutting_down": LikelyCause(
            sentence="A receiver was stopped: a deploy, or a restart. Senders send again.",
            advice="INGEST_SHUTDOWN_DELAY_S lets proxies notice before it stops.",
        ),
    }
)


def _of_status(status: int, sentence: str) -> LikelyCause:
    if status == HTTPStatus.BAD_REQUEST:
        return of_rejected("")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return LikelyCause(
            sentence="It is ours, not the sender's: the delivery could not be stored. Most senders"
            " send again.",
            advice="`ingest doctor` says what is wrong with the database. For senders that do not"
            " send again: `ingest recover`.",
        )
    return LikelyCause(
        sentence=f"The request is not as the source's sender makes it: {sentence}",
        advice="Save the request at the sender, and ask `ingest sources verify`.",
    )


def moment(at: datetime) -> str:
    """Return a time in words."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
