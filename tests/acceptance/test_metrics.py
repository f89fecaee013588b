"""What a real receiver, worker, relay and console tell Prometheus."""

import shutil
import time
from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from ingest.monitoring.catalogue import BY_PROCESS, OF_EVERY_PROCESS
from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack, request
from tests.conftest import Servers, cloned
from tests.support.deliver import body, order
from tests.support.ports import free_port
from tests.support.rows import execute
from tests.support.waiting import until

_PARK = """
    WITH parked AS (
        INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                          next_attempt_at, hinted_until)
        SELECT id, 'removed', 'events', 'pending', 'delivery', 0, 0, 1, now(), 'infinity'
        FROM events
    )
    INSERT INTO parked (processor, queue, reason) VALUES ('removed', 'events', 'unknown')
"""
PROCESSES = tuple(BY_PROCESS)
Scrape = dict[str, Family]


class Watched:
    """A stack, each of whose processes serves metrics."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ports = {process: free_port() for process in PROCESSES}
        for process, port in self.ports.items():
            stack.environment[f"INGEST_{process.upper()}_METRICS_PORT"] = str(port)

    def scrape(self, process: str) -> Scrape:
        """Return what a process serves, by name without `_total`."""
        answer = request(self.ports[process], "GET", "/metrics")
        assert answer.status == 200, answer.body
        return {
            family.name: family for family in text_string_to_metric_families(answer.body.decode())
        }

    def value(self, served_by: str, name: str, **labels: str) -> float:
        """Return the sum of the samples that have the labels."""
        return sum(
            sample.value
            for family in self.scrape(served_by).values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def watched(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """All processes, after some traffic."""
    servers.empty_redis()
    with cloned(servers, template) as url:
        folder = tmp_path_factory.mktemp("watched")
        stack = Stack(
            url,
            servers.redis_url,
            folder,
            processors="shop_processors",
            read_model="false",
            attempt_timeout_s="600",
            refusal_retention_days="30",  # without an age nothing can be behind it
        )
        watched = Watched(stack)
        shutil.copy(shop_processors.__file__, folder)
        execute(stack.engine, "CREATE TABLE effects (what text, event text, attempt int)")
        try:
            stack.receiver()
            stack.worker()
            (folder / "stall").touch()
            assert stack.post(body("contact.created", {"contact_id": 1})).status == 200
            assert stack.post(order(0)).status == 200
            until(lambda: _is_stalled(stack), what="a job succeeded and another runs")
            execute(stack.engine, _PARK)
            stack.relay()  # measures all of that when it begins
            stack.console()
            assert stack.ask("/api/v1/overview").status == 200
            assert request(stack.ports[0], "POST", "/webhooks/nobody", b"{}").status == 404
            until(lambda: watched.value("relay", "ingest_parked_jobs"), what="it measures")
            yield watched
        finally:
            stack.close()


def test_every_process_serves_what_the_catalogue_says(watched: Watched) -> None:
    for process, metrics in BY_PROCESS.items():
        described = {
            metric.name.removesuffix("_total"): metric.kind.value
            for metric in (*metrics, *OF_EVERY_PROCESS)
        }
        served = {name: family.type for name, family in watched.scrape(process).items()}
        assert served == described, process


def test_the_receiver_counts_answers_keys_and_commits(watched: Watched) -> None:
    stack = watched.stack
    before = watched.value("receiver", "ingest_answers_total", status="200")
    assert stack.post(order(1)).status == 200
    unsigned = request(stack.ports[0], "POST", "/webhooks/awalchat", order(2))
    assert unsigned.status == 401
    assert request(stack.ports[0], "POST", "/webhooks/nobody-has-this", b"{}").status == 404
    assert request(stack.ports[0], "GET", "/webhooks/awalchat").status == 405
    own = {"source": "awalchat"}
    assert watched.value("receiver", "ingest_answers_total", status="200", **own) == before + 1
    assert watched.value("receiver", "ingest_answers_total", status="401", **own) >= 1
    assert watched.value("receiver", "ingest_answers_total", status="404", source="") >= 1
    assert watched.value("receiver", "ingest_refusals_total", reason="unknown_source") >= 1
    assert watched.value("receiver", "ingest_deliveries_total", **own) == before + 1
    assert watched.value("receiver", "ingest_commit_deliveries_sum") == before + 1
    assert watched.value("receiver", "ingest_answer_duration_seconds_count", **own) == before + 1
    assert watched.value("receiver", "ingest_storage_up") == 1
    key_used_at = watched.value("receiver", "ingest_key_last_used_timestamp_seconds", rank="newest")
    assert abs(key_used_at - time.time()) < 100
    assert -10 < watched.value("receiver", "ingest_clock_skew_seconds", **own) < 10


def test_what_a_stranger_sends_makes_no_label(watched: Watched) -> None:
    port = watched.stack.ports[0]
    before = sum(len(family.samples) for family in watched.scrape("receiver").values())
    for number in range(30):
        request(port, "POST", f"/webhooks/stranger-{number}", b"{}")
        request(port, "POST", f"/elsewhere/stranger-{number}", b"{}")
        request(port, "POST", "/webhooks/awalchat", b"{}", {f"x-stranger-{number}": "stranger"})
    text = request(watched.ports["receiver"], "GET", "/metrics").body.decode()
    assert "stranger" not in text
    after = sum(len(family.samples) for family in watched.scrape("receiver").values())
    assert after - before <= 8  # of a status and a reason each: 404 twice, 401


def test_the_relay_tells_the_state_of_the_tables(watched: Watched) -> None:
    assert watched.value("relay", "ingest_processes", process="receiver") == 1
    assert watched.value("relay", "ingest_running_jobs", processor="stalls", queue="events") == 1
    assert watched.value("relay", "ingest_oldest_job_age_seconds", processor="stalls") > 0
    assert watched.value("relay", "ingest_parked_jobs", reason="unknown") == 2
    assert watched.value("relay", "ingest_partition_days_ahead") >= 1
    assert watched.value("relay", "ingest_relay_sweeps_total", result="ok") > 0


def test_a_worker_counts_over_all_its_processes_also_those_that_died(watched: Watched) -> None:
    stack = watched.stack
    (stack.folder / "stall").unlink()
    made = [order(number) for number in range(100, 108)]
    made += [order(200, note="discards"), order(201, note="exits"), made[0]]
    for each in made:
        assert stack.post(each).status == 200
    unfinished = "state <> 'succeeded' AND state <> 'dead' AND processor <> 'removed'"
    until(
        lambda: (
            stack.value("SELECT count(*) FROM unadmitted") == 0
            and stack.value(f"SELECT count(*) FROM jobs WHERE {unfinished}") == 0
        ),
        what="all is worked on",
    )

    def attempts(processor: str, outcome: str) -> float:
        return watched.value(
            "worker", "ingest_attempts_total", processor=processor, outcome=outcome
        )

    succeeded = stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
    assert sum(map(attempts, ("ledger", "whims", "stalls"), ["succeeded"] * 3)) == succeeded
    assert attempts("whims", "discarded") == 1
    assert watched.value("worker", "ingest_jobs_dead_total", processor="whims") == 1
    assert watched.value("worker", "ingest_crashed_jobs_total") >= 1
    assert watched.value("worker", "ingest_duplicates_total") == 1
    assert watched.value("worker", "ingest_lag_seconds_count", processor="ledger") == attempts(
        "ledger", "succeeded"
    )


def test_a_worker_that_is_killed_takes_its_exporter_along(watched: Watched) -> None:
    worker = watched.stack.processes[1]
    worker.kill()
    worker.wait(300)
    until(lambda: not _listens(watched.ports["worker"]), what="nobody serves its metrics")


def _is_stalled(stack: Stack) -> bool:
    states = "SELECT count(DISTINCT state) FROM jobs WHERE state IN ('running', 'succeeded')"
    return bool(stack.value(states) == 2)


def _listens(port: int) -> bool:
    try:
        request(port, "GET", "/metrics")
    except OSError:
        return False
    return True
