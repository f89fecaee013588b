"""Why requests are refused, in words, and what is held of them until a receiver reports."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ingest import proxies
from ingest.receiver import refusal_counts as receiving
from ingest.receiver.refusal_counts import RefusalCounts
from ingest.refusals import causes
from ingest.refusals.causes import Facts
from ingest.sources.diagnosis import Step
from ingest.store.reports.key_use import LastUse
from ingest.store.reports.refusal_counts import ADDRESSES, ReasonTotal
from ingest.store.reports.refused_requests import Refusal
from tests.support.signing import SECRET
from tests.support.sources import awalchat

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
OTHER_SECRET = Step(part="secret", is_good=False, sentence="None fits.", advice="Compare them.")
CHANGED = Step(
    part="body", is_good=False, sentence="The body was changed.", advice="Mend the proxy."
)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def total(
    reason: str = "signature_mismatch", source: str = "awalchat", **more: object
) -> ReasonTotal:
    """Refused from noon to ten past."""
    given: dict[str, object] = {
        "status": 401,
        "sentence": "No.",
        "count": 3,
        "addresses": 1,
        "has_more_addresses": False,
        "first_at": NOON,
        "last_at": NOON + minutes(10),
        "request": UUID(int=1),
    }
    return ReasonTotal(reason=reason, source=source, **(given | more))  # type: ignore[arg-type]


def use(key: str, last: timedelta | None, *, is_configured: bool = True) -> LastUse:
    """A key that was used last so long after noon."""
    return LastUse(
        source="awalchat",
        key_id=key,
        is_configured=is_configured,
        last_used_at=None if last is None else NOON + last,
    )


def sample(*steps: Step, reason: str = "signature_mismatch", **more: object) -> Refusal:
    given: dict[str, object] = {"source": "awalchat", "client": "192.0.2.1", "detail": {}}
    return Refusal(reason=reason, at=NOON, steps=steps, **(given | more))  # type: ignore[arg-type]


def cause(
    refused: ReasonTotal, *, samples: Sequence[Refusal] = (), uses: Sequence[LastUse] = ()
) -> causes.LikelyCause:
    sources = {"awalchat": awalchat(SECRET)}
    return causes.of_refusals(refused, Facts(sources=sources, samples=samples, uses=uses))


@pytest.mark.parametrize(
    ("uses", "told"),
    [
        ([], "probably always had: no delivery of the source was accepted"),
        ([use("new", None)], "probably always had"),
        (
            [use("new", None), use("old", minutes(-1), is_configured=False)],
            "the key old, which signed its last accepted delivery at 2026-01-31 11:59 UTC, is none",
        ),
        ([use("new", minutes(-1))], "signs with another secret since about 2026-01-31 12:00 UTC"),
        (
            [use("new", minutes(9))],
            "Others of the source are accepted meanwhile, signed with the key new",
        ),
        (
            [use("new", minutes(30))],
            "It seems to be over: the last one was refused at 2026-01-31 12:10",
        ),
        (
            [use("old", minutes(-1), is_configured=False)],  # this process knows no keys
            "signs with another secret since",
        ),
    ],
)
def test_another_secret_is_told_with_since_when_and_on_which_side(
    uses: list[LastUse], told: str
) -> None:
    likely = cause(total(), samples=[sample(OTHER_SECRET)], uses=uses)
    assert told in likely.sentence
    assert likely.advice


def test_what_a_diagnosis_blames_is_told_rather_than_another_secret() -> None:
    likely = cause(total(), samples=[sample(CHANGED)], uses=[use("new", None)])
    assert (likely.sentence, likely.advice) == ("The body was changed.", "Mend the proxy.")
    header = Step(part="header", is_good=False, sentence="It is not there.", advice="Sign.")
    likely = cause(total("signature_missing"), samples=[sample(header, reason="signature_missing")])
    assert likely.sentence == "It is not there."


@pytest.mark.parametrize(
    ("reason", "given", "told"),
    [
        ("unknown_source", {"source": "awalchta"}, "most likely /webhooks/awalchat is meant"),
        (
            "unknown_source",
            {"source": "wp-login"},
            "for /webhooks/wp-login. No source has that name",
        ),
        ("unknown_source", {"source": "awalchat"}, "The source awalchat had no secret"),
        (
            "not_found",
            {"source": "", "detail": {"path": "POST /hooks"}},
            "The last one was POST /hooks.",
        ),
    ],
)
def test_a_wrong_address_is_told_with_the_one_that_is_meant(
    reason: str, given: dict[str, object], told: str
) -> None:
    refused = total(reason, source="", status=404)
    likely = cause(refused, samples=[sample(reason=reason, **given)])
    assert told in likely.sentence
    assert likely.advice


@pytest.mark.parametrize(
    ("reason", "status", "told"),
    [
        ("body_too_large", 413, "larger than is accepted"),
        ("timestamp_outside_window", 401, "The clocks"),
        ("body_not_json", 400, "it is no event"),
        ("storage_away", 503, "It is ours, not the sender's"),
        ("query_too_long", 401, "not as the source's sender makes it: No."),
    ],
)
def test_every_refusal_has_a_cause_without_a_diagnosis(reason: str, status: int, told: str) -> None:
    likely = cause(total(reason, status=status))
    assert told in likely.sentence
    assert likely.advice


def counted(
    counts: RefusalCounts, client: str, *, at: datetime = NOON, reason: str = "signature_missing"
) -> None:
    counts.count(
        reason=reason,
        source="awalchat",
        client=client,
        status=401,
        sentence="No.",
        at=at,
        request=UUID(int=int(at.timestamp())),
    )


def test_requests_that_are_refused_alike_are_one_row_with_the_last_answer() -> None:
    counts = RefusalCounts()
    for second in (5, 59, 7):
        counted(counts, "192.0.2.1", at=NOON + timedelta(seconds=second))
    (row,) = counts.take()
    assert (row.minute, row.count) == (NOON, 3)
    assert (row.first_at, row.last_at) == tuple(NOON + timedelta(seconds=n) for n in (5, 59))
    assert row.request == UUID(int=int(row.last_at.timestamp()))
    assert counts.take() == []


def test_of_a_minute_some_addresses_have_rows_and_all_requests_are_counted() -> None:
    counts = RefusalCounts()
    for number in range(100):
        counted(counts, f"192.0.2.{number}")
        counted(counts, "192.0.2.0")
    counted(counts, "192.0.2.99", reason="unknown_source")
    rows = {(row.reason, row.client): row.count for row in counts.take()}
    assert len(rows) == ADDRESSES + 2
    assert rows["signature_missing", "192.0.2.0"] == 101
    assert rows["signature_missing", ""] == 100 - ADDRESSES
    assert rows["unknown_source", "192.0.2.99"] == 1


def test_while_no_report_succeeds_what_is_held_stays_bounded() -> None:
    counts = RefusalCounts()
    for minute in range(300):
        for address in range(15):
            counted(counts, f"192.0.2.{address}", at=NOON + minutes(minute))
        counts.hold_again(counts.take())
    rows = counts.take()
    assert len(rows) <= receiving._MOST_ROWS + 1
    assert sum(row.count for row in rows) == 300 * 15
    assert max(row.last_at for row in rows) == NOON + minutes(299)


FORWARDED = b"x-forwarded-for"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("10.9.0.1", [(FORWARDED, b"203.0.113.7")], "203.0.113.7"),
        ("10.9.0.1", [(FORWARDED, b"1.2.3.4, 203.0.113.7, 10.9.0.2")], "203.0.113.7"),
        ("10.9.0.1", [(FORWARDED, b"1.2.3.4"), (FORWARDED, b"203.0.113.7")], "203.0.113.7"),
        ("10.9.0.1", [(FORWARDED, b"203.0.113.7:40123")], "203.0.113.7"),
        ("10.9.0.1", [(FORWARDED, b"[2001:db8::7]:40123")], "2001:db8::7"),
        ("10.9.0.1", [(FORWARDED, b"2001:DB8::7")], "2001:db8::7"),
        ("10.9.0.1", [(FORWARDED, b"10.9.0.3")], "10.9.0.3"),
        ("10.9.0.1", [(FORWARDED, b"1.2.3.4, \xff' OR 1")], "10.9.0.1"),
        ("10.9.0.1", [(FORWARDED, b"1.2.3.4, " * 50 + b"203.0.113.7")], "203.0.113.7"),
        ("10.9.0.1", [], "10.9.0.1"),
        ("203.0.113.7", [(FORWARDED, b"1.2.3.4")], "203.0.113.7"),
        ("@socket", [(FORWARDED, b"1.2.3.4")], "@socket"),
    ],
)
def test_the_word_of_trusted_proxies_says_where_a_request_came_from(
    peer: str, headers: list[tuple[bytes, bytes]], client: str
) -> None:
    assert proxies.Trusted(["10.9.0.0/16"]).client(peer, headers) == client
    assert proxies.Trusted([]).client(peer, headers) == peer
