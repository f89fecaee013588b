"""Counting for Prometheus: what threads and processes share, and how it is spelled."""

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingest import settings
from ingest.cli.up import _Run
from ingest.monitoring import catalogue
from ingest.monitoring import endpoint as endpoint_module
from ingest.monitoring.catalogue import BY_PROCESS, Kind
from ingest.monitoring.endpoint import Address, Endpoint
from ingest.monitoring.samples import Durations, Sample, Sizes
from ingest.receiver.metrics import ReceiverMetrics
from ingest.store.pipeline.histograms import counted
from ingest.store.pipeline.jobs import Failure, Outcome
from tests.support.lines import Lines
from tests.support.ports import free_port
from tests.support.signing import SECRET
from tests.support.sources import awalchat
from tests.support.waiting import until
from workers.counts import WorkerCounts
from workers.relay import measurement


def in_a_fork(act: Callable[[], None], *, until_killed: bool = False) -> int:
    """Run something in a fork; return its process id once that is done."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(writing, b".")
            if until_killed:
                signal.pause()
        finally:  # whatever happens, this is not a second run of the tests
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"."
    os.close(reading)
    return pid


def duplicates(counts: WorkerCounts) -> float:
    (value,) = (each.value for each in counts.read() if each.metric == catalogue.DUPLICATES)
    assert isinstance(value, float)
    return value


def test_the_counts_of_processes_add_up_and_outlive_them() -> None:
    counts = WorkerCounts(["a"], processes=2)

    def count() -> None:
        counts.take().add(catalogue.DUPLICATES)

    for _ in range(5):  # more than there are rows: each row is taken again
        os.waitpid(in_a_fork(count), 0)
    assert duplicates(counts) == 5


def test_a_row_belongs_to_one_living_process_and_a_killed_one_leaves_it() -> None:
    counts = WorkerCounts(["a"], processes=1)

    def count() -> None:
        counts.take().add(catalogue.DUPLICATES)

    holder = in_a_fork(count, until_killed=True)
    try:
        os.waitpid(in_a_fork(count), 0)  # finds no row, and counts where nobody reads
        counted = duplicates(counts)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    assert counted == 1
    os.waitpid(in_a_fork(count), 0)
    assert duplicates(counts) == 2


def test_a_tally_tells_processors_and_outcomes_apart() -> None:
    counts = WorkerCounts(["a", "b"], processes=1)
    tally = counts.take()
    tally.succeeded("a", counted([0.003]), counted([1.5]))
    tally.succeeded("b", counted([0.003]), counted([]))
    tally.failed("b", Failure(id=1, attempt=1, outcome=Outcome.TIMED_OUT, retry_in_s=2.0))
    tally.failed("b", Failure(id=1, attempt=2, outcome=Outcome.FAILED, retry_in_s=None))
    told = {(each.metric.name, each.labels): each.value for each in counts.read()}
    nonzero = {
        labels: value
        for (name, labels), value in told.items()
        if name == "ingest_attempts_total" and value
    }
    assert nonzero == {
        ("a", "succeeded"): 1,
        ("b", "succeeded"): 1,
        ("b", "timed_out"): 1,
        ("b", "failed"): 1,
    }
    assert told["ingest_jobs_dead_total", ("b",)] == 1
    assert ("ingest_lag_seconds", ("a",)) in told
    assert ("ingest_lag_seconds", ("b",)) not in told


def test_durations_and_sizes_are_counted_in_their_bucket() -> None:
    durations, sizes = Durations(), Sizes()
    for seconds in (0.0005, 0.0015, 0.003):
        durations.add(seconds)
    for size in (1, 2, 3, 4, 500, 10**6):
        sizes.add(size)
    told = durations.read()
    assert [bound for bound, count in zip(told.bounds, told.counts, strict=False) if count] == [
        0.001,
        0.002,
        0.004,
    ]
    assert told.total == pytest.approx(0.005)
    counted = sizes.read()
    assert sum(counted.counts) == 6
    assert counted.counts[:3] == (1, 1, 2)
    assert counted.counts[-1] == 1


def test_a_source_that_a_stranger_names_makes_no_label() -> None:
    metrics = ReceiverMetrics({"shop": awalchat()})
    for source in ("shop", "stranger"):
        metrics.count_refusal(
            "unknown_source",
            status=404,
            at=datetime.now(UTC),
            source=source,
            client="10.0.0.1",
            headers=[],
        )
    refusals = {each.labels for each in metrics.read() if each.metric == catalogue.REFUSALS}
    assert refusals == {("shop", "unknown_source"), ("", "unknown_source")}


def test_the_first_rejected_event_is_a_rise() -> None:
    """A counter that begins at one has not grown, and `IngestEventsRejected` would not fire."""
    source = awalchat()
    metrics = ReceiverMetrics({source.slug: source})

    def rejected() -> list[object]:
        return [
            sample.value
            for sample in metrics.read()
            if (sample.metric, sample.labels) == (catalogue.ANSWERS, (source.slug, "400"))
        ]

    assert rejected() == [0]
    metrics.count_refusal(
        "body_not_object",
        status=400,
        at=datetime.now(UTC),
        source=source.slug,
        client="10.0.0.1",
        headers=[],
    )
    assert rejected() == [1]


def test_after_a_measurement_that_hung_the_next_one_comes_within_minutes() -> None:
    assert measurement.pause_s(0.3) == 15
    assert measurement.pause_s(5) == 50
    assert measurement.pause_s(300) == 150  # and not 50 minutes


def test_a_key_was_used_when_its_count_is_seen_to_grow() -> None:
    now = 1_000.0
    source = awalchat(SECRET)
    metrics = ReceiverMetrics({source.slug: source}, clock=lambda: now)
    (key,) = source.key_ids

    def used_at() -> float:
        (sample,) = (each for each in metrics.read() if each.metric == catalogue.KEY_LAST_USED)
        assert sample.labels == (source.slug, key, "newest")
        assert isinstance(sample.value, float)
        return sample.value

    assert used_at() == 0
    metrics.count_key(source.slug, key)
    assert used_at() == 1_000
    now = 2_000.0
    assert used_at() == 1_000


def test_up_gives_the_processes_of_a_kind_one_port_after_another() -> None:
    run = _Run(
        settings=settings.load(standalone=True, receiver_metrics_port=9101),
        folder=None,  # type: ignore[arg-type]  # not asked for
        database_url="",
        redis_url="",
        secrets={},
    )
    assert run._metrics_port("receiver", 1) == {"RECEIVER_METRICS_PORT": "9101"}
    assert run._metrics_port("receiver", 3) == {"RECEIVER_METRICS_PORT": "9103"}
    assert run._metrics_port("worker", 1) == {}


def test_what_is_served_is_read_back_as_it_was_counted() -> None:
    durations = Durations()
    for _ in range(3):
        durations.add(0.003)
    samples = [
        Sample(catalogue.ANSWERS, 7, ("shop", "200")),
        Sample(catalogue.ANSWER_DURATION, durations.read(), ("shop",)),
        Sample(catalogue.STORAGE_UP, 1),
    ]
    endpoint = Endpoint(Address("127.0.0.1", port := free_port()), "receiver", [lambda: samples])
    endpoint.start()
    try:
        until(lambda: listens(port), what="it serves")
        families = {family.name: family for family in text_string_to_metric_families(scrape(port))}
    finally:
        endpoint.close()
    assert families["ingest_answers"].type == "counter"
    (answers,) = families["ingest_answers"].samples
    assert (answers.labels, answers.value) == ({"source": "shop", "status": "200"}, 7)
    buckets = {
        sample.labels["le"]: sample.value
        for sample in families["ingest_answer_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert (buckets["0.002"], buckets["0.004"], buckets["+Inf"]) == (0, 3, 3)
    assert not listens(port)


def test_a_taken_port_is_tried_again_until_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_BIND_AGAIN_S", 0.02)
    with socket.create_server(("127.0.0.1", port := free_port())):
        endpoint = Endpoint(Address("127.0.0.1", port), "relay", [])
        endpoint.start()
    until(lambda: listens(port) and "ingest_build_info" in scrape(port), what="it serves")
    endpoint.close()


def test_an_endpoint_that_never_got_its_port_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = Endpoint(Address("127.0.0.1", taken.getsockname()[1]), "relay", [])
        endpoint.start()
        endpoint.close()


def test_an_endpoint_that_is_closed_as_it_gets_its_port_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint(Address("127.0.0.1", port := free_port()), "relay", [])
    closing = threading.Thread(target=endpoint.close, daemon=True)

    class BetweenBindingAndServing(Lines):
        def info(self, event: str, **fields: Any) -> None:
            closing.start()
            endpoint._ends.wait(300)

    monkeypatch.setattr(endpoint_module, "log", BetweenBindingAndServing())
    endpoint.start()
    until(lambda: closing.ident is not None, what="it is being closed")
    closing.join(300)
    assert not closing.is_alive()
    assert not listens(port)


def test_a_clock_that_is_put_back_makes_no_sum_fall() -> None:
    """To Prometheus a sum that falls is a restart, after which all of it counts again."""
    durations = Durations()
    for seconds in (0.5, -3600.0):
        durations.add(seconds)
    assert durations.read().total == 0.5
    assert sum(durations.read().counts) == 2
    assert counted([0.5, -3600.0]).total_s == 0.5


def test_names_are_in_one_namespace_with_their_unit() -> None:
    for metric in {metric for metrics in BY_PROCESS.values() for metric in metrics}:
        assert metric.name.startswith("ingest_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        if "duration" in metric.name or "age" in metric.name.split("_"):
            assert metric.name.endswith("_seconds")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def scrape(port: int) -> str:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        client.request("GET", "/metrics")
        return client.getresponse().read().decode()
    finally:
        client.close()
