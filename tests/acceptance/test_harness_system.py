"""This pipeline as a system of the public benchmark, with nothing of that benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.harness import ours
from tests.support.fleet import children_of
from tests.support.waiting import end, until

ROOT = Path(__file__).parents[2]
REQUIRED = {
    *("claim_p50_ms", "claim_p95_ms", "claim_p99_ms"),
    *("enqueue_rate", "completion_rate", "queue_depth"),
}
"""By the guide of the benchmark."""
PARTS = 3
"""A receiver, a worker and a relay."""


def test_it_speaks_the_protocol_and_ends_when_it_is_told_to(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    printed = tmp_path / "printed"
    wanted = {"SAMPLE_EVERY_S": "1", "PRODUCER_RATE": "40", "WORKER_COUNT": "4"}
    with printed.open("wb") as output:
        system = subprocess.Popen(
            [sys.executable, "-m", ours.__name__],
            cwd=ROOT,
            env=os.environ | wanted | {"DATABASE_URL": database_url, ours.REDIS: redis_url},
            stdin=subprocess.DEVNULL,
            stdout=output,
        )
    try:
        values = until(lambda: _values(system, printed), what="jobs are inserted and done")
        assert values.keys() >= REQUIRED
        parts = children_of(system.pid)
        assert len(parts) >= PARTS
        assert end(system) == 0
        assert not [pid for pid in parts if Path(f"/proc/{pid}").exists()]
    finally:
        system.kill()
        system.wait()


def _values(system: "subprocess.Popen[bytes]", printed: Path) -> dict[str, float]:
    """Return what was measured, once jobs were inserted and done; until then nothing."""
    assert system.poll() is None, "it ended by itself"
    records = [
        json.loads(line) for line in printed.read_text().splitlines(keepends=True) if "\n" in line
    ]
    if not records:
        return {}
    descriptor, *measured = records
    assert (descriptor["kind"], descriptor["system"]) == ("descriptor", "ours")
    assert {"ingest.jobs", "ingest.events"} < set(descriptor["event_tables"])
    assert {record["subject_kind"] for record in measured} <= {"adapter"}
    values: dict[str, float] = {}
    for record in measured:
        metric = record["metric"]
        values[metric] = max(record["value"], values.get(metric, 0.0))
    moves = (
        values.keys() >= REQUIRED and values["enqueue_rate"] > 0 and values["completion_rate"] > 0
    )
    return values if moves else {}
