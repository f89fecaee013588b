from tests.unit.test_outcome import processor
from workers.batch_size import LARGEST, MOMENT_S, BatchSizer


def test_a_slow_processor_gets_one_job_at_a_time() -> None:
    pace = BatchSizer()
    pace.observe(processor(), 1, 5.0)
    assert pace.batch_size(processor()) == 1


def test_a_quick_one_gets_as_many_as_fit_into_a_moment() -> None:
    pace = BatchSizer()
    for _ in range(50):
        pace.observe(processor(), 10, 10 * MOMENT_S / 40)
    assert 35 <= pace.batch_size(processor()) <= 40
    for _ in range(50):
        pace.observe(processor(), 10, 0.0)
    assert pace.batch_size(processor()) == LARGEST


def test_one_slow_slice_is_not_held_against_it_for_ever() -> None:
    pace = BatchSizer()
    pace.observe(processor(), 1, 60.0)
    for _ in range(40):
        pace.observe(processor(), pace.batch_size(processor()), 0.001)
    assert pace.batch_size(processor()) == LARGEST
