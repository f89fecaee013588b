from dataclasses import replace

import pytest

from tests.unit.test_outcome import processor
from workers.batch_size import LARGEST, MOMENT_S, BatchSizer, length_of_runs


def test_a_slow_processor_gets_one_job_at_a_time() -> None:
    pace = BatchSizer()
    pace.observe(processor(), 1, 5.0)
    assert pace.batch_size(processor()) == 1


def test_a_quick_one_gets_as_many_as_fit_into_a_moment() -> None:
    pace = BatchSizer()
    pace.observe_sizes(processor(), [300])
    for _ in range(50):
        pace.observe(processor(), 10, 10 * MOMENT_S / 40)
    assert 35 <= pace.batch_size(processor()) <= 40
    for _ in range(50):
        pace.observe(processor(), 10, 0.0)
    assert pace.batch_size(processor()) == LARGEST


def test_one_slow_slice_is_not_held_against_it_for_ever() -> None:
    pace = BatchSizer()
    pace.observe_sizes(processor(), [300])
    pace.observe(processor(), 1, 60.0)
    for _ in range(40):
        pace.observe(processor(), pace.batch_size(processor()), 0.001)
    assert pace.batch_size(processor()) == LARGEST


@pytest.mark.parametrize("batch", [False, True])
def test_a_slice_of_large_bodies_is_smaller_at_once_and_grows_when_they_are_small_again(
    batch: bool,
) -> None:
    pace, quick = BatchSizer(), replace(processor(), batch=batch)
    assert pace.batch_size(quick) <= 32
    for _ in range(50):
        pace.observe(quick, 10, 0.001)
        pace.observe_sizes(quick, [300] * 10)
    most = pace.batch_size(quick)
    assert most >= LARGEST
    pace.observe_sizes(quick, [4 * 1024**2] * most)
    assert pace.batch_size(quick) == pace.fitting(quick) == 8
    pace.observe_sizes(quick, [64 * 1024**2] * 8)
    assert pace.batch_size(quick) == pace.fitting(quick) == 1
    for _ in range(50):
        pace.observe_sizes(quick, [300])
    assert pace.batch_size(quick) == most


def test_ten_keys_share_a_batch_where_so_many_wait() -> None:
    assert length_of_runs(processor(), size=LARGEST, keys=LARGEST) == 10
    assert length_of_runs(processor(), size=LARGEST, keys=1) == 20
    assert length_of_runs(processor(), size=10, keys=3) == 3
    assert length_of_runs(processor(), size=1, keys=1) == 1


def test_a_list_and_threads_take_one_job_of_a_key() -> None:
    assert length_of_runs(replace(processor(), batch=True), size=LARGEST, keys=5) == 1
    assert length_of_runs(replace(processor(), threads=2), size=LARGEST, keys=5) == 1
