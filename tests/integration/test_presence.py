"""Who runs, by their own word, and what a receiver counts between two of its reports."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from ingest import heartbeat
from ingest.heartbeat import Heartbeat, identity
from ingest.receiver import refused as refused_by
from ingest.receiver.metrics import ReceiverMetrics
from ingest.sources.base import WebhookRequest
from ingest.store.address import parse
from ingest.store.pipeline import admission, jobs
from ingest.store.pipeline import metrics as minutes
from ingest.store.pipeline.histograms import cell
from ingest.store.pipeline.jobs import NewJobs
from ingest.store.pipeline.metrics import ANSWER, REFUSED
from ingest.store.reports import heartbeats, refused_requests
from ingest.store.reports.heartbeats import ALIVE_FOR, ProcessIdentity, ProcessRecord
from tests.support.deliver import deliver, order
from tests.support.rows import execute, one, rows
from tests.support.signing import SECRET, signed_headers
from tests.support.slots import on_servers_of_its_own, two_backends, until_waiting
from tests.support.sources import awalchat
from tests.support.waiting import until

RECEIVER = ProcessIdentity(id="a:1:0", kind="receiver", host="a", pid=1, version="1.0")
WORKER = ProcessIdentity(id="b:2:0", kind="worker", host="b", pid=2, version="1.0")
NOW = datetime(2026, 1, 20, 11, tzinfo=UTC)

MakePresence = Callable[..., Heartbeat]


def see(engine: Engine, process: ProcessIdentity = RECEIVER) -> None:
    with engine.begin() as connection:
        heartbeats.upsert(connection, process)


def found(engine: Engine) -> list[ProcessRecord]:
    with engine.connect() as connection:
        return heartbeats.all_of_them(connection)


def passes(engine: Engine, since_seen: timedelta) -> None:
    """So long ago each was seen."""
    execute(engine, "UPDATE processes SET seen_at = now() - CAST(:age AS interval)", age=since_seen)


def test_a_process_that_reports_is_alive_and_stays_the_one_that_started(engine: Engine) -> None:
    see(engine)
    (first,) = found(engine)
    assert first.alive
    assert (first.id, first.kind, first.host, first.pid, first.version) == (
        "a:1:0",
        "receiver",
        "a",
        1,
        "1.0",
    )
    see(engine)
    (second,) = found(engine)
    assert second.started_at == first.started_at
    assert second.seen_at > first.seen_at


def test_one_that_stops_reporting_is_not_alive_and_is_again_when_it_reports(engine: Engine) -> None:
    see(engine)
    passes(engine, ALIVE_FOR - timedelta(seconds=5))
    assert [each.alive for each in found(engine)] == [True]
    passes(engine, ALIVE_FOR + timedelta(seconds=1))
    assert [each.alive for each in found(engine)] == [False]
    see(engine)
    assert [each.alive for each in found(engine)] == [True]


def test_one_that_leaves_is_gone_and_the_others_stay(engine: Engine) -> None:
    see(engine)
    see(engine, WORKER)
    with engine.begin() as connection:
        heartbeats.remove(connection, RECEIVER)
    assert [each.id for each in found(engine)] == ["b:2:0"]


def test_one_that_was_killed_is_told_of_for_a_while(engine: Engine) -> None:
    see(engine)
    passes(engine, timedelta(minutes=59))
    see(engine, WORKER)
    for age, left in ((timedelta(hours=1), ["a:1:0", "b:2:0"]), (timedelta(minutes=58), ["b:2:0"])):
        with engine.begin() as connection:
            heartbeats.prune(connection, older_than=age)
        assert [each.id for each in found(engine)] == left


def test_what_a_worker_works_on_its_jobs_say(engine: Engine, database_url: str) -> None:
    see(engine, WORKER)
    see(engine, replace(WORKER, id="b:3:0"))
    with engine.begin() as connection:
        admitted = admission.admit(
            connection,
            deliver(database_url, [order(n) for n in range(3)]),
            [NewJobs(type="order.created", processor="orders", queue="events", max_attempts=3)],
            replay_queue="replay",
            redispatch_after_s=0,
        )
        jobs.claim(
            connection,
            [job.id for job in admitted.jobs[:2]],
            worker="b:2:0",
            lease_s=60,
            max_attempts=3,
        )
    busy, idle = found(engine)
    assert (busy.works_on, busy.jobs, busy.since) == (
        "orders",
        2,
        one(engine, "SELECT min(started_at) FROM jobs"),
    )
    assert (idle.works_on, idle.jobs, idle.since) == (None, 0, None)


def test_no_two_processes_have_the_same_name() -> None:
    first, second = (identity("worker", random=os.urandom) for _ in range(2))
    assert (first.host, first.pid, first.kind) == (second.host, second.pid, "worker")
    assert first.pid == os.getpid()
    assert first.id != second.id


@pytest.fixture
def make_presence(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePresence]:
    """Starts processes that report often, and ends them."""
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.02)
    made: list[Heartbeat] = []

    def make(process: ProcessIdentity = RECEIVER, **reports: Any) -> Heartbeat:
        made.append(Heartbeat(parse(database_url), process, **reports))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.leave()
        assert not each._thread.is_alive()


class Told:
    """A report of a process, and how often it was asked for and kept."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.times = 0

    def __call__(self, connection: Connection) -> None:
        self.times += 1
        if self.times <= self.fails:
            connection.execute(text("SELECT 1 / 0"))


def test_a_process_reports_again_and_again_until_it_leaves(
    engine: Engine, make_presence: MakePresence
) -> None:
    report = Told()
    process = make_presence(report=report)
    (first,) = until(lambda: found(engine), what="it was seen")
    until(lambda: found(engine)[0].seen_at > first.seen_at, what="it was seen again")
    assert report.times > 1
    process.leave()
    assert found(engine) == []


def test_what_was_counted_last_is_reported_as_it_leaves(
    engine: Engine, make_presence: MakePresence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 60.0)
    metrics = ReceiverMetrics()
    process = make_presence(report=metrics.report, confirm=metrics.confirm_report)
    until(lambda: found(engine), what="it was seen")
    metrics.count_answer(0.5)
    process.leave()
    assert answers(engine) == 1


def test_a_process_introduces_itself_until_that_was_kept_and_then_no_more(
    engine: Engine, make_presence: MakePresence
) -> None:
    introduce, report = Told(fails=3), Told()
    make_presence(introduce=introduce, report=report)
    until(lambda: report.times > 5, what="it reports")
    assert introduce.times == 4
    assert len(found(engine)) == 1


def test_an_introduction_that_was_rolled_back_with_a_report_is_made_again(
    engine: Engine, make_presence: MakePresence
) -> None:
    introduce, report = Told(), Told(fails=3)
    make_presence(introduce=introduce, report=report)
    until(lambda: report.times > 5, what="it reports")
    assert introduce.times == 4


def answers(engine: Engine) -> int:
    """How many answers were reported."""
    return counted(engine, ANSWER)


def counted(engine: Engine, what: str) -> int:
    return int(
        one(engine, "SELECT coalesce(sum(count), 0) FROM activity WHERE what = :what", what=what)
    )


def refuse(metrics: ReceiverMetrics, reason: str = "bad_signature", **more: Any) -> None:
    given: dict[str, Any] = {
        "status": 401,
        "at": NOW,
        "source": "awalchat",
        "client": "10.0.0.1",
        "headers": [],
    }
    metrics.count_refusal(reason, **(given | more))


def kept(engine: Engine) -> list[refused_requests.Refusal]:
    with engine.connect() as connection:
        return refused_requests.newest(connection)


def report(engine: Engine, metrics: ReceiverMetrics) -> None:
    with engine.begin() as connection:
        metrics.report(connection)
    metrics.confirm_report()


@pytest.mark.parametrize("lacking", ["activity", "refusals", "refusal_counts", "processes"])
def test_counts_that_could_not_be_reported_are_reported_with_the_next(
    lacking: str, engine: Engine, make_presence: MakePresence
) -> None:
    execute(engine, f"ALTER TABLE {lacking} RENAME TO away")
    metrics = ReceiverMetrics()
    reports = Told()

    def tell(connection: Connection) -> None:
        reports(connection)
        metrics.report(connection)

    for _ in range(3):
        metrics.count_answer(0.002)
        refuse(metrics)
    refuse(metrics, "too_large")
    make_presence(report=tell, confirm=metrics.confirm_report)
    until(lambda: reports.times > 2, what="it reports in vain")
    metrics.count_answer(0.002)
    refuse(metrics)
    execute(engine, f"ALTER TABLE away RENAME TO {lacking}")
    until(lambda: len(found(engine)), what="it was seen")
    # The first report that succeeds may be one that was under way before the last two were counted.
    until(lambda: (answers(engine), counted(engine, REFUSED)) == (4, 5), what="all is reported")
    assert {each.reason for each in kept(engine)} == {"bad_signature", "too_large"}


def test_a_receiver_counts_answers_by_how_long_they_took_and_refusals_by_reason(
    engine: Engine,
) -> None:
    metrics = ReceiverMetrics()
    for seconds in (0.0001, 0.003, 0.003, 1.5):
        metrics.count_answer(seconds)
    for reason in ("bad_signature", "bad_signature", "too_large"):
        refuse(metrics, reason)
    report(engine, metrics)
    report(engine, metrics)  # nothing is left
    since = datetime.now(UTC) - timedelta(hours=1)
    with engine.connect() as connection:
        answered = minutes.by_label(connection, ANSWER, since=since)
        refused = minutes.by_label(connection, REFUSED, since=since)
    assert {label: each.total for label, each in refused.items()} == {
        "bad_signature": 2,
        "too_large": 1,
    }
    assert list(answered) == [""]
    expected = [cell(seconds) for seconds in (0.0001, 0.003, 0.003, 1.5)]
    assert [
        n for n, count in enumerate(answered[""].counts) for _ in range(round(count))
    ] == expected


def test_of_each_reason_the_last_ten_samples_are_kept(engine: Engine) -> None:
    metrics = ReceiverMetrics()
    for number in range(25):
        refuse(
            metrics, "bad_signature", at=NOW + timedelta(seconds=number), client=f"10.0.0.{number}"
        )
        if number < 3:
            refuse(metrics, "too_large", at=NOW - timedelta(days=1, seconds=number))
        report(engine, metrics)
    found = kept(engine)
    assert [each.client for each in found if each.reason == "bad_signature"] == [
        f"10.0.0.{number}" for number in reversed(range(15, 25))
    ]
    assert len(found) == 13
    assert [each.at for each in found] == sorted((each.at for each in found), reverse=True)


def test_a_sender_that_floods_leaves_the_samples_of_others(engine: Engine) -> None:
    metrics = ReceiverMetrics()
    refuse(metrics, at=NOW - timedelta(days=1), client="192.0.2.1")
    report(engine, metrics)
    for number in range(20):
        refuse(metrics, at=NOW + timedelta(seconds=number), client="10.0.0.1")
        report(engine, metrics)
    clients = [each.client for each in kept(engine)]
    assert clients == ["10.0.0.1"] * 9 + ["192.0.2.1"]


@on_servers_of_its_own
def test_who_reports_the_same_reasons_in_another_order_does_not_wait_in_a_circle(
    engine: Engine,
) -> None:
    reasons = ["bad_signature", "too_large"]
    full = ReceiverMetrics()
    for number in range(20):
        refuse(full, reasons[number % 2])
        report(engine, full)

    def tell(connection: Connection, reasons: Sequence[str]) -> None:
        metrics = ReceiverMetrics()
        for reason in reasons:
            refuse(metrics, reason, client="10.0.0.9")
        with connection.begin():
            metrics.report(connection)

    with (
        two_backends(engine, of_one_slot=False) as (one_way, other_way),
        ThreadPoolExecutor(2) as pool,
    ):
        with engine.begin() as holding:
            holding.execute(text("SELECT FROM refusals WHERE reason = 'bad_signature' FOR UPDATE"))
            told = [pool.submit(tell, one_way, reasons)]
            until_waiting(engine, 1)
            told.append(pool.submit(tell, other_way, reasons[::-1]))
            until_waiting(engine, 2)
        for each in told:
            each.result(300)
    assert counted(engine, REFUSED) == 24


def test_a_flood_of_refusals_costs_one_sample_of_each_reason_a_report(engine: Engine) -> None:
    metrics = ReceiverMetrics()
    for number in range(1_000):
        refuse(metrics, f"reason-{number % 300}", client=f"10.0.0.{number}")
    report(engine, metrics)
    reasons = rows(engine, "SELECT label, count FROM activity WHERE what = 'refused'")
    assert len(reasons) == len(kept(engine)) == 100
    last = {each.reason: each.client for each in kept(engine)}
    assert last["reason-0"] == "10.0.0.900"


def test_a_sample_holds_what_tells_what_went_wrong_cut_short_and_storable(engine: Engine) -> None:
    metrics = ReceiverMetrics()
    refuse(
        metrics,
        source="awal\x00chat" * 100,
        headers=[
            (b"user-agent", b"x" * 1_000),
            (b"content-type", "text/plain; naïve".encode("latin-1")),
            (b"x-awal-webhook-signature", b"secret"),
            (b"authorization", b"secret"),
        ],
    )
    report(engine, metrics)
    (sample,) = kept(engine)
    assert set(sample.detail) == {"user-agent", "content-type", "headers there"}
    assert sample.detail["headers there"].startswith("authorization, content-type")
    assert sample.detail["user-agent"] == "x" * 199 + "…"
    assert sample.detail["content-type"] == "text/plain; naïve"
    assert len(sample.source) == 200
    assert "\x00" not in sample.source
    assert (sample.at, sample.client) == (NOW, "10.0.0.1")


@pytest.mark.parametrize(
    ("changed", "part"),
    [({"secret": "another_secret_0123456789"}, "secret"), ({"timestamp": 1_700_000_000}, "time")],
)
def test_a_sample_says_what_was_to_blame_and_keeps_neither_body_nor_signature(
    changed: dict[str, Any], part: str, engine: Engine
) -> None:
    body = order(1)
    headers = [
        (name.lower().encode(), value.encode())
        for name, value in signed_headers(body, **changed).items()
    ]
    request = WebhookRequest("POST", "/webhooks/awalchat?key=private", headers, body)
    metrics = ReceiverMetrics()
    diagnose = refused_by.diagnosis(
        awalchat(SECRET), request, now=int(datetime.now(UTC).timestamp()), body_limit=100_000
    )
    refuse(metrics, headers=headers, diagnose=diagnose)
    report(engine, metrics)
    (sample,) = kept(engine)
    assert [step.is_good for step in sample.steps[-2:]] == [True, False]
    assert sample.steps[-1].part == part
    assert sample.steps[-1].advice
    detail = one(engine, "SELECT detail FROM refusals")
    assert all(isinstance(value, str) for value in detail.values())  # the release before masks them
    stored = str(detail)
    signature = dict(headers)[b"x-awal-webhook-signature"].decode()
    for private in (signature, "private", "order_id", SECRET):
        assert private not in stored


def test_a_body_that_is_too_large_to_be_held_is_said_to_be(engine: Engine) -> None:
    request = WebhookRequest("POST", "/webhooks/awalchat", [], b" " * 70_000)
    metrics = ReceiverMetrics()
    refuse(
        metrics,
        diagnose=refused_by.diagnosis(awalchat(SECRET), request, now=0, body_limit=100_000),
    )
    report(engine, metrics)
    (step,) = kept(engine)[0].steps
    assert "70,000" in step.sentence
    assert "ingest sources verify" in step.advice
