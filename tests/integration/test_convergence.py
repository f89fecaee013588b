"""Whatever arrives in whatever order, and whatever dies on the way, the end is the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from sqlalchemy import Engine

from tests.integration.pipeline import Pipeline, Scenario, Turn, playing
from tests.support.effort import examples
from tests.support.fault_injection import Fate, Fault
from tests.support.generated_events import Happening, retried, shop_days, spell, unruly_days
from tests.support.rows import one

DOINGS = ["work"] * 7 + ["replay", "arrive", "sweep", "end_leases", "find_wrecks", "forget"]
choices = st.integers(0, 7)


def faults(*fates: Fate, in_effects: SearchStrategy[bool]) -> SearchStrategy[Fault]:
    steps = st.sampled_from(range(16))
    return st.builds(Fault, fate=st.sampled_from(fates), step=steps, in_effects=in_effects)


def turns() -> SearchStrategy[Turn]:
    """Anything may befall anybody; that one dies who has overtaken another is a case of its own."""
    anywhere, in_effects = st.booleans(), st.just(True)
    any_turn = st.builds(
        Turn,
        does=st.sampled_from(DOINGS),
        fault=faults(*Fate, in_effects=anywhere) | st.none(),
        other=faults(Fate.KILLED, in_effects=anywhere) | st.none(),
        choice=choices,
    )
    overtaken = st.builds(
        Turn,
        does=st.just("work"),
        fault=faults(Fate.STALLED, in_effects=in_effects),
        other=faults(Fate.KILLED, in_effects=in_effects),
        choice=choices,
    )
    return any_turn | any_turn | overtaken


@st.composite
def scenarios(draw: DrawFn, days: SearchStrategy[list[Happening]]) -> Scenario:
    """Days of happenings, told once or more often in any order, and a pipeline in trouble."""
    happened = draw(days)
    once = [spell(each) for each in happened]
    again = [spell(each) for each in draw(st.lists(st.sampled_from(happened), max_size=4))]
    retries = [retried(each) for each in draw(st.lists(st.sampled_from(happened), max_size=4))]
    moods = st.sampled_from(["works", "works", "fails", "snoozes"])
    return Scenario(
        arriving=draw(st.permutations(once + again + retries)),
        turns=draw(st.lists(turns(), min_size=4, max_size=10)),
        moods=draw(st.lists(moods, max_size=3)),
    )


@pytest.fixture
def pipeline(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    with playing(engine, database_url, tmp_path) as played:
        yield played


converging = settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@converging
@given(scenario=scenarios(shop_days()))
def test_a_shops_days_end_alike_whatever_order_repeats_and_crashes_there_were(
    pipeline: Pipeline, engine: Engine, scenario: Scenario
) -> None:
    pipeline.run(scenario)
    assert one(engine, "SELECT count(*) FROM duplicates WHERE conflict") == 0
    assert one(engine, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0


@converging
@given(scenario=scenarios(unruly_days))
def test_what_keeps_to_no_protocol_ends_alike_too(pipeline: Pipeline, scenario: Scenario) -> None:
    pipeline.run(scenario)
