"""Times are read by the grammars of RFC 3339, of its relatives, and of the time since the epoch."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.timestamps import _JAVASCRIPT, _OTHER_ZONE, parse_moment, parse_timestamp

TEN_THIRTY = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2024-01-20T10:30:00Z", TEN_THIRTY),
        ("2024-01-20t10:30:00z", TEN_THIRTY),
        ("2024-01-20 13:30:00+03:00", TEN_THIRTY),
        ("2024-01-20T10:30:00-00:00", TEN_THIRTY),
        ("2024-01-20T10:30:00.5Z", TEN_THIRTY + timedelta(milliseconds=500)),
        ("2024-01-20T10:30:00.123456789Z", TEN_THIRTY + timedelta(microseconds=123456)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:60.9Z", datetime(9999, 12, 31, 23, 59, 59, 900_000, tzinfo=UTC)),
        ("1759021711", datetime(2025, 9, 28, 1, 8, 31, tzinfo=UTC)),
        (1759021711, datetime(2025, 9, 28, 1, 8, 31, tzinfo=UTC)),
        ("1759021711856", datetime(2025, 9, 28, 1, 8, 31, 856_000, tzinfo=UTC)),
        (1759021711856, datetime(2025, 9, 28, 1, 8, 31, 856_000, tzinfo=UTC)),
        # GitLab
        ("2015-05-17 18:08:09 UTC", datetime(2015, 5, 17, 18, 8, 9, tzinfo=UTC)),
        ("2021-04-28 21:50:00 +0200", datetime(2021, 4, 28, 19, 50, tzinfo=UTC)),
        ("2024-01-20T13:30:00+0300", TEN_THIRTY),
        ("2024-01-20T10:30:00.5 UTC", TEN_THIRTY + timedelta(milliseconds=500)),
        # Salla
        ("Tue May 24 2022 09:24:17 GMT+0300", datetime(2022, 5, 24, 6, 24, 17, tzinfo=UTC)),
        ("Sat Jan 20 2024 00:30:00 GMT-1000 (Hawaii-Aleutian Standard Time)", TEN_THIRTY),
        ("Sat Jan 20 2024 10:30:00 GMT+0000 (توقيت غرينتش)", TEN_THIRTY),
    ],
)
def test_a_moment_is_read(written: Any, moment: datetime) -> None:
    assert parse_timestamp(written) == moment
    assert parse_timestamp(written).utcoffset() == timedelta(0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "written",
    [
        *(
            "20250101",
            "1759",
            "2024-01-20",
            "20240120T103000Z",
            "2024-W03-6",
            "2024-W03-6T10:30:00Z",
        ),
        *("2024-01-20T10:30:00", "2024-01-20T10:30Z", "2024-01-20T10Z", "2024-020T10:30:00Z"),
        *("2024-01-20T10:30:005Z", "2024-01-20T10:30:00.Z", "2024-01-20T10:30:00,5Z"),
        *("2024-13-20T10:30:00Z", "2024-02-30T10:30:00Z", "2024-01-20T24:00:00Z"),
        *("2024-01-20T10:61:00Z", "2024-01-20T10:30:61Z", "2024-01-20T10:30:00+24:00"),
        *("2024-01-20T10:30:00 Z", " 2024-01-20T10:30:00Z", "2022-12-31 12:31:25"),
        *("2015-05-17 18:08:09 GMT", "2015-05-17 18:08:09 utc", "2015-05-17 18:08:09UTC"),
        *("2015-05-17 18:08:09 UTC+0300", "2015-05-17 18:08:09 +03:00", "2015-05-17 18:08 UTC"),
        *("2015-05-17 18:08:09 +2400", "2015-05-17 18:08:09 +0360", "0001-01-01 00:00:00 +0300"),
        *("Wed May 24 2022 09:24:17 GMT+0300", "Tue Mai 24 2022 09:24:17 GMT+0300"),
        *("Tue May 24 2022 09:24:17", "Tue May 24 2022 09:24:17 GMT", "Tue May 24 2022"),
        *("Tue May 24 2022 09:24:17 GMT+03:00", "tue may 24 2022 09:24:17 gmt+0300"),
        *("Tue May 24 2022 24:24:17 GMT+0300", "Wed Feb 30 2022 09:24:17 GMT+0300"),
        *("Tue May 24 2022 09:24:17 GMT+0300 ()", "Tue May 24 2022 09:24:17 GMT+0300 (a) (b)"),
        *("Mon Jan 01 0001 00:00:00 GMT+0300", "Sat Jan 01 0000 00:00:00 GMT+0000"),
        *("0001-01-01T00:00:00+03:00", "0000-01-01T00:00:00Z", "2024-01-20T10:30:00Z\n"),
        *("0759021711", "175902171", "17590217110", "1759021711.5", "-1759021711", "+1759021711"),
        *("yesterday", "", "Z", "\u0661759021711"),
        *(17, 0, -1759021711, True, 1759021711.5, 10**30, None, [], {}),
    ],
)
def test_what_is_no_moment_is_unreadable(written: Any) -> None:
    assert parse_timestamp(written) is None


@given(st.datetimes(timezones=st.timezones()) | st.datetimes(timezones=st.just(UTC)))
def test_whatever_python_writes_is_read(moment: datetime) -> None:
    spelled = moment.isoformat()
    offset = moment.utcoffset()
    assert offset is not None
    if offset.total_seconds() % 60:  # of some cities long ago, which RFC 3339 cannot write
        assert parse_timestamp(spelled) is None
        return
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        expected = None
    assert parse_timestamp(spelled) == expected


@given(
    st.text()
    | st.integers()
    | st.from_regex(_OTHER_ZONE, fullmatch=True)
    | st.from_regex(_JAVASCRIPT, fullmatch=True)
)
def test_whatever_is_given_raises_nothing(written: Any) -> None:
    parse_timestamp(written)


def test_a_person_may_leave_out_the_offset_and_the_time_of_day() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for written, moment in {
        "2026-01-31": now - timedelta(hours=12),
        "2026-01-31T12:00": now,
        "2026-01-31 12:00:00": now,
        "2026-01-31T15:00:00+03:00": now,
        "2h": now - timedelta(hours=2),
        "today": now - timedelta(hours=12),
        "yesterday": now - timedelta(hours=36),
        "1759021711856": datetime(2025, 9, 28, 1, 8, 31, 856_000, tzinfo=UTC),
        "20250101": None,
        "1759": None,
    }.items():
        assert parse_moment(written, now=now) == moment, written
