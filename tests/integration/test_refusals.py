"""Refused requests and rejected deliveries: counted within bounds, listed, told with a cause."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from ingest import ids
from ingest.console import app
from ingest.errors import NotFound
from ingest.receiver.metrics import ReceiverMetrics
from ingest.refusals import report
from ingest.refusals.report import BadPlace
from ingest.sources.diagnosis import Step
from ingest.store.engine import create_engine
from ingest.store.reports import refusal_counts, refused_requests, rejected
from ingest.store.reports.refusal_counts import ADDRESSES, RefusalFilter, RefusedRequests
from ingest.store.reports.refused_requests import Refusal
from ingest.store.reports.rejected import RejectedFilter
from tests.integration.test_command_parity import Run, run
from tests.support.asgi import Browser
from tests.support.rows import execute, one, rows
from tests.support.signing import SECRET
from tests.support.sources import awalchat

__all__ = ["run"]

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
SOURCES = {"awalchat": awalchat(SECRET)}
ALL = RefusalFilter(since=START - 100 * HOUR, until=START + 100 * HOUR)


def row(
    client: str = "192.0.2.1",
    count: int = 1,
    *,
    at: datetime = START,
    reason: str = "signature_mismatch",
    source: str = "awalchat",
    status: int = 401,
    number: int = 0,
) -> RefusedRequests:
    return RefusedRequests(
        minute=at.replace(second=0, microsecond=0),
        reason=reason,
        source=source,
        client=client,
        status=status,
        sentence=f"Told for {reason}.",
        count=count,
        first_at=at,
        last_at=at,
        request=ids.delivery_id(int(at.timestamp() * 1000), bytes([number] * 10)),
    )


def add(engine: Engine, *counted: RefusedRequests) -> None:
    with engine.begin() as connection:
        refusal_counts.add(connection, counted)


def stored(engine: Engine) -> dict[tuple[str, str], int]:
    """The counts by reason and address."""
    listed = rows(
        engine,
        "SELECT reason, client, CAST(sum(count) AS bigint) AS count FROM refusal_counts"
        " GROUP BY 1, 2",
    )
    return {(each["reason"], each["client"]): each["count"] for each in listed}


def test_reports_add_up_and_keep_the_last_answer(engine: Engine) -> None:
    add(engine, row(count=2, number=1), row("192.0.2.2"))
    add(engine, row(count=3, at=START + 30 * MINUTE / 60, number=9), row(count=1, number=4))
    (kept, other) = rows(engine, "SELECT * FROM refusal_counts ORDER BY client")
    assert (kept["count"], kept["first_at"], kept["last_at"]) == (6, START, START + MINUTE / 2)
    assert kept["request"].bytes[-1] == 9
    assert other["count"] == 1


def test_a_flood_from_many_addresses_costs_a_bounded_number_of_rows(engine: Engine) -> None:
    add(engine, row("192.0.2.250"))
    for flood in range(3):
        add(engine, *(row(f"198.51.{flood}.{number}") for number in range(50)))
    add(engine, row("192.0.2.250"), row("192.0.2.1", reason="unknown_source", source=""))
    counts = stored(engine)
    assert len(counts) == ADDRESSES + 2
    assert counts["signature_mismatch", "192.0.2.250"] == 2
    assert counts["signature_mismatch", ""] == 150 - (ADDRESSES - 1)
    assert sum(counts.values()) == 153


def compact(engine: Engine, now: datetime, **more: Any) -> None:
    with engine.begin() as connection:
        refusal_counts.compact(
            connection, now=now, keep_minutes=2 * HOUR, keep_quarters=26 * HOUR, **more
        )


def test_old_rows_become_fewer_and_nothing_is_lost_of_their_counts(engine: Engine) -> None:
    flood = [
        row(f"198.51.{minute}.{number}", at=START + minute * MINUTE)
        for minute in range(15)
        for number in range(5)
    ]
    add(engine, *flood, row("192.0.2.1", 40, at=START + 14 * MINUTE))
    compact(engine, START + HOUR)
    assert one(engine, "SELECT count(*) FROM refusal_counts") == 76
    compact(engine, START + 3 * HOUR)
    counts = stored(engine)
    # Rows of the quarter's first minute stay beside those that are merged into it.
    assert len(counts) == 5 + ADDRESSES + 1
    assert counts["signature_mismatch", "192.0.2.1"] == 40
    assert sum(counts.values()) == 115
    assert one(engine, "SELECT count(DISTINCT minute) FROM refusal_counts") == 1
    add(engine, row("192.0.2.1", 2, at=START + 50 * MINUTE))
    compact(engine, START + 30 * HOUR)
    assert {each["minute"] for each in rows(engine, "SELECT minute FROM refusal_counts")} == {START}
    assert stored(engine)["signature_mismatch", "192.0.2.1"] == 42
    compact(engine, START + 31 * HOUR, kept=3)
    assert one(engine, "SELECT count(*) FROM refusal_counts") == 3


def newest(
    connection: Connection, wanted: RefusalFilter, *, limit: int
) -> Iterator[RefusedRequests]:
    """Every page after the other."""
    before = None
    while True:
        page = report.page(connection, wanted, limit=limit, before=before)
        assert len(page.refusals) <= limit
        yield from page.refusals
        before = page.older
        if before is None:
            return


def test_the_list_has_each_row_once_and_what_the_filter_means(engine: Engine) -> None:
    counted = [
        row(f"192.0.2.{number % 3}", at=START + number // 5 * MINUTE, reason=f"reason-{number % 5}")
        for number in range(23)
    ]
    add(engine, *counted, row("", source="", reason="unknown_source", status=404))
    with engine.connect() as connection:
        listed = list(newest(connection, ALL, limit=4))
        assert len(listed) == len({each.key for each in listed}) == 24
        assert [each.minute for each in listed] == sorted(
            (each.minute for each in listed), reverse=True
        )

        def keys(**narrowed: Any) -> set[refusal_counts.Key]:
            wanted = RefusalFilter(**({"since": ALL.since, "until": ALL.until} | narrowed))
            return {each.key for each in newest(connection, wanted, limit=7)}

        assert keys(reason="reason-2") == {r.key for r in counted if r.reason == "reason-2"}
        assert keys(client="192.0.2.1") == {r.key for r in counted if r.client == "192.0.2.1"}
        assert keys(text="FOR Reason-4") == {r.key for r in counted if r.reason == "reason-4"}
        assert {key.reason for key in keys(source="")} == {"unknown_source"}
        assert keys(source="other") == keys(text="%") == set()
        later = {"since": START + 2 * MINUTE, "until": START + 3 * MINUTE}
        assert {key.minute for key in keys(**later)} == {START + 2 * MINUTE}
        with pytest.raises(BadPlace, match="no such place in the list"):
            report.page(connection, ALL, limit=1, before="bm8")


def test_why_and_from_where_are_told_with_the_likely_cause(engine: Engine) -> None:
    add(
        engine,
        row("203.0.113.7", 412, number=3),
        row("203.0.113.7", 2, reason="timestamp_outside_window"),
        row("198.51.100.9", 30, reason="unknown_source", source="", status=404),
    )
    step = Step(part="secret", is_good=False, sentence="None fits.", advice="Compare them.")
    tried = Refusal(reason="unknown_source", at=START, source="awalchet", client="", detail={})
    wrong = Refusal(
        reason="signature_mismatch",
        at=START,
        source="awalchat",
        client="",
        detail={},
        steps=(step,),
    )
    execute(
        engine,
        "INSERT INTO activity VALUES (:at, 'key', 'awalchat 00000000', 0, 0, 9)",
        at=START - MINUTE,
    )
    with engine.begin() as connection:
        refused_requests.keep(connection, [tried, wrong])
        summary = report.summary(connection, ALL, SOURCES, now=START + HOUR)
    mismatch, unknown, late = summary.reasons
    assert (mismatch.total.count, mismatch.total.addresses, mismatch.total.sentence) == (
        412,
        1,
        "Told for signature_mismatch.",
    )
    assert "changed here and not at the sender: the key 00000000" in mismatch.cause.sentence
    assert "at 2026-01-31 11:59 UTC" in mismatch.cause.sentence
    assert mismatch.sample == wrong
    assert "most likely /webhooks/awalchat is meant" in unknown.cause.sentence
    assert late.total.reason == "timestamp_outside_window"
    sender, stranger = summary.addresses
    assert (sender.client, sender.count) == ("203.0.113.7", 414)
    assert [(part.reason, part.count) for part in sender.reasons] == [
        ("signature_mismatch", 412),
        ("timestamp_outside_window", 2),
    ]
    assert stranger.count == 30


def test_a_request_is_found_by_the_id_that_its_sender_got(engine: Engine) -> None:
    last = row(count=5, at=START + MINUTE, number=1)
    add(engine, last, row(at=START + MINUTE / 2), row("192.0.2.9", at=START + MINUTE))
    with engine.connect() as connection:
        told = report.of_request(connection, last.request, SOURCES, now=START + HOUR)
        assert (told.is_certain, told.at) == (True, START + MINUTE)
        assert [each.request for each in told.refusals] == [last.request]
        another = UUID(int=last.request.int - 1)
        told = report.of_request(connection, another, SOURCES, now=START + HOUR)
        assert not told.is_certain
        assert {each.client for each in told.refusals} == {"192.0.2.1", "192.0.2.9"}
        assert [group.total.reason for group in told.reasons] == ["signature_mismatch"]
        for nobodys in (ids.first_id(START + HOUR), UUID(int=2**128 - 1), UUID(int=0)):
            with pytest.raises(NotFound):
                report.of_request(connection, nobodys, SOURCES, now=START + HOUR)


def reject(engine: Engine, count: int, first: int = 0, **more: Any) -> None:
    """Store rejected deliveries, each received a minute after the one before."""
    for number in range(first, first + count):
        at = START + number * MINUTE
        given = {"reason": "body_not_json", "source": "awalchat", "part_of": None} | more
        execute(
            engine,
            "INSERT INTO deliveries (id, source, received_at, key_id, headers, body, rejected,"
            " part_of) VALUES (:id, :source, :at, '-', '[]', 'no', :reason, :part_of)",
            id=ids.delivery_id(int(at.timestamp() * 1000), bytes([number] * 10)),
            at=at,
            **given,
        )


def test_rejected_deliveries_are_listed_with_what_their_senders_were_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reject(engine, 9)
    reject(engine, 2, 20, reason="type_missing", source="hub", part_of=UUID(int=1))
    add(engine, row(reason="body_not_json", status=400))
    with engine.connect() as connection:

        def pages(wanted: RejectedFilter, limit: int) -> Iterator[report.ListedRejected]:
            before = None
            while True:
                page = report.rejected_page(
                    connection, wanted, limit=limit, before=before, now=START + HOUR
                )
                yield from page.deliveries
                before = page.older
                if before is None:
                    return

        listed = list(pages(RejectedFilter(), 4))
        assert len(listed) == len({each.id for each in listed}) == 11
        assert [each.id for each in listed] == sorted((each.id for each in listed), reverse=True)
        told = {(each.rejected, each.status, each.sentence) for each in listed}
        assert told == {
            ("body_not_json", 400, "Told for body_not_json."),
            ("type_missing", 200, None),
        }
        monkeypatch.setattr(rejected, "EXAMINED", 3)  # a page that finds nothing has a next one
        assert len(list(pages(RejectedFilter(source="hub"), 4))) == 2
        assert len(list(pages(RejectedFilter(text="NOT_JSON", until=START + 3 * MINUTE), 2))) == 3
        wanted = RejectedFilter(since=START + 7 * MINUTE)
        groups = [(each.reason, each.deliveries) for each in rejected.by_reason(connection, wanted)]
        assert groups == [("type_missing", 2), ("body_not_json", 1)]


Ask = Callable[..., Any]


@pytest.fixture
def console(make_settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    engines: list[Engine] = []

    def kept(*arguments: Any, **options: Any) -> Engine:
        engines.append(create_engine(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(app, "create_engine", kept)
    yield Browser(app=app.create_app(make_settings()))
    for engine in engines:
        engine.dispose()


def visible(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_page_api_and_command_say_the_same(
    engine: Engine, console: Browser, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", SECRET)
    metrics = ReceiverMetrics(SOURCES)
    now = datetime.now(UTC)
    number = ids.delivery_id(int(now.timestamp() * 1000), bytes(10))
    for _ in range(3):
        metrics.count_refusal(
            "signature_mismatch",
            status=401,
            at=now,
            source="awalchat",
            client="203.0.113.7",
            headers=[],
            sentence="The signature does not match.",
            request_id=number,
        )
    with engine.begin() as connection:
        metrics.report(connection)
    (summary,) = run("refusals", "summary", "--json")
    (group,) = summary["reasons"]
    cause = group["cause"]["sentence"]
    assert "probably always had" in cause
    page = visible(console.get("/refusals").text)
    assert "3 \N{MULTIPLICATION SIGN} The signature does not match. 401 signature_mismatch" in page
    assert cause in page
    assert group["cause"]["advice"] in page
    asked = json.loads(console.get("/api/v1/refusals/summary").text)
    assert asked["reasons"][0]["cause"] == group["cause"]
    (address,), (told,) = asked["addresses"], summary["addresses"]
    assert [address[name] for name in ("client", "count", "reasons")] == [
        told[name] for name in ("client", "count", "reasons")
    ]
    for path, command in (
        ("?address=203.0.113.7", ("--address", "203.0.113.7")),
        ("?q=nothing", ("--text", "nothing")),
    ):
        listed = json.loads(console.get(f"/api/v1/refusals{path}").text)["items"]
        assert [each["request"] for each in listed] == [
            each["request"] for each in run("refusals", "list", "--json", *command)
        ]
    (one_request,) = run("refusals", "show", str(number), "--json")
    assert one_request["is_certain"]
    found = json.loads(console.get(f"/api/v1/refusals/{number}").text)
    assert found["reasons"][0]["cause"] == one_request["reasons"][0]["cause"]
    assert "It was refused so:" in visible(console.get(f"/refusals?q={number}").text)
    assert run("refusals", "show", str(UUID(int=1)), fails=True).startswith("ingest: Nothing is")
    assert run("refusals", "list", "--since", "1h", "--until", "2h", fails=True) == (
        "ingest: --since is not before --until."
    )


def test_a_bar_leads_to_its_requests(engine: Engine, console: Browser) -> None:
    now = datetime.now(UTC)
    add(
        engine,
        row(count=7, at=now),
        row(count=5, at=now - 5 * HOUR),
        row("", reason="other", at=now),
    )
    page = console.get("/refusals").text
    links = [unescape(link) for link in re.findall(r'<a href="([^"]+)"[^>]*data-bar', page)]
    assert len(links) == 3
    listed = [visible(console.get(link.partition("#")[0]).text) for link in links]
    assert (
        sum("5 \N{MULTIPLICATION SIGN} Told for signature_mismatch." in text for text in listed)
        == 1
    )
    assert (
        sum("7 \N{MULTIPLICATION SIGN} Told for signature_mismatch." in text for text in listed)
        == 1
    )
    assert all(text.count(" \N{MULTIPLICATION SIGN} Told for") == 1 for text in listed)
    assert console.get("/refusals?since=1h&until=2h").status == 400
    assert console.get("/refusals?before=%20").status == 400
