"""How the queues of a worker are parted among its processes."""

import pytest

from ingest import settings
from ingest.errors import SettingsError
from workers.shares import Share, plan

ONE = [Share(queues=("events", "replay"), processes=2)]


def parts(*consumed: str, **allotted: int) -> list[tuple[str, int]]:
    named = {tuple(name.split("__")): number for name, number in allotted.items()}
    return [(each.name, each.processes) for each in plan(consumed, named, processes=2)]


def test_without_queues_of_their_own_there_is_one_share() -> None:
    assert plan(("events", "replay"), {}, processes=2) == ONE


def test_by_default_no_queue_can_take_a_process_from_the_live_one() -> None:
    assert parts("crm", "erp", "events", "replay") == [("events", 2), ("crm+erp+replay", 1)]


def test_named_shares_are_as_named_and_the_rest_has_one_process() -> None:
    assert parts("crm", "erp", "events", "replay", events=3, crm=1) == [
        ("events", 3),
        ("crm", 1),
        ("erp+replay", 1),
    ]
    assert parts("crm", "erp", "events", "replay", crm__erp=4) == [
        ("events", 2),
        ("crm+erp", 4),
        ("replay", 1),
    ]


def test_a_worker_that_does_not_consume_the_live_queue_has_all_processes_for_the_others() -> None:
    assert parts("crm", "erp") == [("crm+erp", 2)]
    assert parts("crm", "erp", crm=1) == [("crm", 1), ("erp", 2)]


def test_a_queue_that_no_processor_has_is_no_share() -> None:
    assert plan(("events", "replay"), {("crm",): 3}, processes=2) == ONE


def test_every_queue_is_in_one_share() -> None:
    consumed = ("a", "b", "events", "replay")
    shares: list[dict[tuple[str, ...], int]] = [
        {},
        {("a",): 1},
        {("a", "replay"): 1},
        {("events", "replay"): 1, ("b",): 2},
    ]
    for allotted in shares:
        found = plan(consumed, allotted, processes=2)
        assert sorted(queue for share in found for queue in share.queues) == sorted(consumed)


def test_the_setting_is_read() -> None:
    found = settings.load(worker_processes=" events = 2 , crm+erp=1")
    assert found.worker_processes == {("events",): 2, ("crm", "erp"): 1}


@pytest.mark.parametrize("bad", ["events", "events=0", "=2", "a=x", "a=1,a=2", "a+=1", "a=-1"])
def test_what_is_not_one_is_refused_in_a_sentence(bad: str) -> None:
    with pytest.raises(SettingsError, match="INGEST_WORKER_PROCESSES: must name each queue once"):
        settings.load(worker_processes=bad)
