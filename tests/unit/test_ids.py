from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from ingest import ids

moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
)


@given(moments, st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7_that_carries_its_time(
    moment: datetime, random: bytes
) -> None:
    identity = ids.delivery_id(round(moment.timestamp() * 1000), random)
    assert identity.version == 7
    assert identity.variant == RFC_4122
    assert abs(ids.received_at(identity) - moment) < timedelta(milliseconds=1)


@given(moments, st.binary(min_size=10, max_size=10))
def test_ids_lie_between_the_bounds_of_their_moment(moment: datetime, random: bytes) -> None:
    identity = ids.delivery_id(int(moment.timestamp() * 1000), random)
    assert ids.first_id(moment) <= identity
    assert identity < ids.first_id(moment + timedelta(milliseconds=2))


def test_the_ids_of_one_millisecond_follow_the_receipts() -> None:
    """A sender that waits for each answer may get it within the millisecond."""
    moments = [5.0, 5.0005, 5.25, 5.9995, 6.0]
    made = [ids.delivery_id(moment, b"\xff" * 10) for moment in moments[::-1]][::-1]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {ids.received_at(identity) for identity in made[:4]} == {ids.received_at(made[0])}


def test_different_randomness_gives_different_ids() -> None:
    assert ids.delivery_id(5, b"\x00" * 10) != ids.delivery_id(5, b"\x00" * 9 + b"\x01")


def test_the_elements_of_the_greatest_id_have_a_bound() -> None:
    greatest = UUID(int=2**128 - 1)
    assert ids.last_element_id(greatest) == greatest
