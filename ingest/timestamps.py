"""Read times that other systems or people wrote."""

import re
from datetime import UTC, datetime, timedelta

TIME_FORMS = "2026-01-31T12:00:00Z, or 15m, 2h, 7d for before now, or today, yesterday"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DAYS_AGO = {"today": 0, "yesterday": 1}
# A date-time of RFC 3339, section 5.6. Six digits of a fraction count.
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-9]{2}:)([0-9]{2})"
    r"(?:(\.[0-9]{1,6})[0-9]*)?(?:[Zz]|([+-][0-9]{2}:[0-9]{2}))"
)
# The form of most senders; it is read in half the time.
_USUAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-5][0-9]Z")
_OFFSET = r"[+-](?:[01][0-9]|2[0-3])[0-5][0-9]"
# The same with the zone as Ruby and PHP write it: ` UTC`, ` +0300`, `+0300`.
_OTHER_ZONE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-9]{2}:)([0-9]{2})"
    rf"(?:(\.[0-9]{{1,6}})[0-9]*)?(?: UTC| ?({_OFFSET}))"
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# `Tue May 24 2022 09:24:17 GMT+0300 (Arabian Standard Time)`; no locale changes its names.
_JAVASCRIPT = re.compile(
    rf"({'|'.join(_DAYS)}) ({'|'.join(_MONTHS)}) ([0-9]{{2}}) ([0-9]{{4}})"
    rf" ((?:[01][0-9]|2[0-3]):[0-9]{{2}}:[0-5][0-9]) GMT({_OFFSET})(?: \([^()]+\))?"
)
_EPOCH = re.compile(r"[1-9][0-9]{9}(?:[0-9]{3})?")
# A person may leave out the offset, and the time of the day.
_BY_HAND = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.]+)?")
_LEAP_SECOND = "60"


def parse_timestamp(value: object) -> datetime | None:
    """Return a sender's time, aware and in UTC. None: it is unreadable.

    Readable are a date-time of RFC 3339 with its offset, also as ` UTC` or `+0300`; what JavaScript
    makes of a date (`Tue May 24 2022 09:24:17 GMT+0300`); and the time since the epoch in seconds
    (10 digits) or milliseconds (13 digits), as a number or in a string. Nothing else is: the
    meaning of what merely resembles a time (`20250101`, `1759`) is unknown, and so is that of a
    time without an offset.
    """
    if isinstance(value, str):
        if _USUAL.fullmatch(value):
            return _in_utc(value)
        match = _RFC_3339.fullmatch(value)
        if match is None:
            return _of_epoch(value) or _of_other_forms(value)
        return _of_rfc_3339(*match.groups())
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**13:
        return _of_epoch(str(value))
    return None


def parse_moment(text: str, *, now: datetime) -> datetime | None:
    """Return the time that a person wrote in one of `TIME_FORMS`, or None if it is none of them.

    1970 is the earliest. A time without an offset is in UTC, and so is the midnight with which
    `today` and `yesterday` begin.
    """
    if text in _DAYS_AGO:
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=_DAYS_AGO[text])
    epoch = datetime.fromtimestamp(0, UTC)
    unit = _UNITS.get(text[-1:])
    if unit and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 10:
        try:
            return max(epoch, now - timedelta(**{unit: int(text[:-1])}))
        except OverflowError:  # a span that begins before the year 1
            return epoch
    moment = parse_timestamp(text)
    if moment is None and _BY_HAND.fullmatch(text):
        moment = _in_utc(text)
    return None if moment is None or moment < epoch else moment


def _of_rfc_3339(
    date: str, time: str, second: str, fraction: str | None, offset: str | None
) -> datetime | None:
    # A leap second counts as the last one before it.
    kept = "59" if second == _LEAP_SECOND else second
    return _in_utc(f"{date}T{time}{kept}{fraction or ''}{offset or '+00:00'}")


def _of_other_forms(written: str) -> datetime | None:
    if match := _OTHER_ZONE.fullmatch(written):
        return _of_rfc_3339(*match.groups())
    if match := _JAVASCRIPT.fullmatch(written):
        day, month, of_month, year, time, offset = match.groups()
        date = f"{year}-{_MONTHS.index(month) + 1:02}-{of_month}"
        moment = _in_utc(f"{date}T{time}{offset}")
        return moment if moment and _DAYS[datetime.fromisoformat(date).weekday()] == day else None
    return None


def _of_epoch(digits: str) -> datetime | None:
    if not _EPOCH.fullmatch(digits):
        return None
    is_in_seconds = len(digits) == 10
    milliseconds = int(digits) * 1_000 if is_in_seconds else int(digits)
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)


def _in_utc(spelled: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(spelled)
        if moment.tzinfo is UTC:
            return moment
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
