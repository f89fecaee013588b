"""The protocol of the public benchmark's systems."""

import asyncio
from pathlib import Path

import pytest

from tests.harness.protocol import Counts, Settings, serve, settings

DESCRIBED = {"DATABASE_URL": "postgres://bench:bench@localhost:15555/ours_bench"}


def test_what_the_harness_does_not_say_is_as_its_guide_has_it() -> None:
    wanted = settings(DESCRIBED)
    assert (wanted.rate, wanted.workers, wanted.work_s, wanted.sample_every_s) == (
        800,
        32,
        0.001,
        5,
    )
    assert (wanted.batch_most, wanted.target_depth, wanted.instance) == (128, None, 0)


def test_jobs_come_at_a_rate_or_up_to_a_depth() -> None:
    assert settings(DESCRIBED | {"TARGET_DEPTH": "500"}).target_depth is None
    asked = DESCRIBED | {"PRODUCER_MODE": "depth-target", "TARGET_DEPTH": "500"}
    assert settings(asked).target_depth == 500


def test_the_rate_of_now_is_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rate"
    wanted = settings(DESCRIBED | {"PRODUCER_RATE_CONTROL_FILE": str(file), "PRODUCER_RATE": "7"})
    assert wanted.rate_now() == 7
    file.write_text("10.5\n")
    assert wanted.rate_now() == 10.5
    file.write_text("")
    assert wanted.rate_now() == 7


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    counts = Counts()
    assert counts.percentiles(0.5, 0.99) == [0, 0]
    for number in range(100, 0, -1):
        counts.ended(number / 1000)
    assert counts.done == 100
    assert [round(ms) for ms in counts.percentiles(0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]


def test_a_clock_that_went_back_makes_no_job_early() -> None:
    counts = Counts()
    counts.ended(-3.0)
    assert counts.percentiles(1.0) == [0]


def test_jobs_are_as_long_as_the_harness_wants_them() -> None:
    wanted = settings(DESCRIBED | {"JOB_PAYLOAD_BYTES": "300"})
    bare = '{"padding": ""}'
    assert len(bare.replace('""', f'"{wanted.padding(bare)}"')) == 300
    assert settings(DESCRIBED | {"JOB_PAYLOAD_BYTES": "3"}).padding(bare) == ""


class Silent:
    """A system that takes everything and does nothing."""

    name, version = "silent", "1"
    tables: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.asked = self.inserted = self.closed = 0
        self.goes_on = asyncio.Event()

    async def open(self, settings: Settings, counts: Counts) -> None:
        """Nothing is to be made."""

    async def insert(self, count: int) -> int:
        """Take them."""
        self.inserted += count
        self._look()
        return count

    async def depth(self) -> int:
        """None ever waits."""
        self.asked += 1
        self._look()
        return 0

    def _look(self) -> None:
        if self.asked >= 3 and self.inserted:
            self.goes_on.set()

    async def close(self) -> None:
        """Count."""
        self.closed += 1


@pytest.mark.parametrize("instance", ["0", "1"])
def test_each_instance_goes_on_until_it_is_told_to_end(instance: str) -> None:
    async def run(system: Silent) -> None:
        ended = asyncio.Event()
        wanted = settings(DESCRIBED | {"BENCH_INSTANCE_ID": instance})
        serving = asyncio.create_task(serve(system, wanted, ended))
        going_on = asyncio.create_task(system.goes_on.wait())
        await asyncio.wait({serving, going_on}, return_when=asyncio.FIRST_COMPLETED)
        assert going_on.done()
        assert not serving.done()
        ended.set()
        await serving

    system = Silent()
    asyncio.run(asyncio.wait_for(run(system), 300))
    assert system.closed == 1


def test_a_system_whose_measurements_fail_ends_with_that_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        raise BrokenPipeError("nobody reads")

    monkeypatch.setattr("tests.harness.protocol._sample", fail)
    system = Silent()
    with pytest.raises(BrokenPipeError):
        asyncio.run(serve(system, settings(DESCRIBED), asyncio.Event()))
    assert system.closed == 1
