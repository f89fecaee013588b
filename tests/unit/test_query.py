"""The search syntax: what it means, what it does not understand, and that it never fails."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.phones import normal_phone
from ingest.query import FILTERS, MOST_PARTS, parse, spell
from ingest.store.search.comparisons import COMPARE
from ingest.store.search.filters import EVENT_STATES, MARKS, SIGNS, EventFilter
from ingest.store.search.related import KINDS
from tests.support.effort import examples

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("01a211ec-b9b9-7d4b-8f43-27f574144b61")


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("", EventFilter()),
        (" \t ", EventFilter()),
        ("type:order.* type:tag.added", EventFilter(types=("order.*", "tag.added"))),
        ("STATE:dead", EventFilter(state="dead")),
        ("state:dead state:dead", EventFilter(state="dead")),
        (
            "processor:my_app.orders source:awalchat",
            EventFilter(processor="my_app.orders", source="awalchat"),
        ),
        ("replay:12 state:dead", EventFilter(replay=12, state="dead")),
        ("replay:#12 taken_back:7", EventFilter(replay=12, taken_back=7)),
        ("since:2h", EventFilter(since=NOW - timedelta(hours=2))),
        ("until:2026-01-31T12:00:00+03:00", EventFilter(until=NOW - timedelta(hours=3))),
        ("conversation:0123", EventFilter(about=(("conversation", "123"),))),
        *(
            (f"phone:{written}", EventFilter(about=(("phone", "966511110001"),)))
            for written in (
                "966511110001",
                "+966511110001",
                "00966511110001",
                "+966-51-111-0001",
                "966 51 111 0001",
                "+966 (51) 111-0001",
                '"+966 (51) 111-0001"',
                "\u202a+966 51 111 0001\u202c",
                "\u202a+966511110001\u202c",
                "\u0669\u0666\u0666\u0665\u0661\u0661\u0661\u0661\u0660\u0660\u0660\u0661",
                "\u0669\u0666\u0666 \u0665\u0661 \u0661\u0661\u0661 \u0660\u0660\u0660\u0661",
                "۹۶۶۵۱۱۱۱۰۰۰۱",
                "\uff19\uff16\uff165111\uff1100\uff101",
            )
        ),
        (
            "phone:966511110001 790 x",
            EventFilter(about=(("phone", "966511110001"),), search=("790", "x")),
        ),
        (
            "phone:966 51 state:dead 7",
            EventFilter(about=(("phone", "96651"),), state="dead", search=("7",)),
        ),
        ("phone:SA.abc", EventFilter(about=(("phone", "SA.abc"),))),
        (
            "phone:US.13491208655302741918 7",
            EventFilter(about=(("phone", "US.13491208655302741918"),), search=("7",)),
        ),
        ("order:55 contact:-9", EventFilter(about=(("order", "55"), ("contact", "-9")))),
        ("message:wamid.X:1", EventFilter(about=(("message", "wamid.X:1"),))),
        ("contact:cus_9", EventFilter(about=(("contact", "cus_9"),))),
        (f"order:{2**63}", EventFilter(about=(("order", str(2**63)),))),
        (f"id:{ID} id:order.created:790", EventFilter(ids=(ID,), event_ids=("order.created:790",))),
        ("data.Total:1250", EventFilter(fields=(("data.Total", "1250"),))),
        (".event:order.created", EventFilter(fields=(("event", "order.created"),))),
        ('data.note:"" data.x:*', EventFilter(fields=(("data.note", ""), ("data.x", "*")))),
        ('error:ValueError raised:""', EventFilter(error_type="ValueError", raised_at="")),
        ('"free text" word', EventFilter(search=("free text", "word"))),
        (r'"say \"hi\" \\ \d"', EventFilter(search=(r'say "hi" \ \d',))),
        ('a"b "c"d', EventFilter(search=('a"b', "c", "d"))),
        ('"type:order"', EventFilter(search=("type:order",))),
        # A sender's id for an event, an address, a time: texts that have a colon.
        ("order.created:790", EventFilter(search=("order.created:790",))),
        (
            "https://shop.example/x 12:30 :x",
            EventFilter(search=("https://shop.example/x", "12:30", ":x")),
        ),
        (
            '-type:order.* -source:shop -state:dead -"a text" -word -data.x:1',
            EventFilter(
                excluded=(
                    EventFilter(types=("order.*",)),
                    EventFilter(source="shop"),
                    EventFilter(state="dead"),
                    EventFilter(search=("a text",)),
                    EventFilter(search=("word",)),
                    EventFilter(fields=(("data.x", "1"),)),
                )
            ),
        ),
        ('"-word" - 7', EventFilter(search=("-word", "-", "7"))),
        (
            "data.total:>1000 .at:<=2026-01-31T15:00:00+03:00 data.at:>2h",
            EventFilter(
                comparisons=(
                    ("data.total", ">", "1000"),
                    ("at", "<=", "2026-01-31T12:00:00Z"),
                    ("data.at", ">", "2026-01-31T10:00:00Z"),
                )
            ),
        ),
        ('data.note:">5"', EventFilter(fields=(("data.note", ">5"),))),
        (
            "is:duplicate -is:conflict deliveries:>1 deliveries:7",
            EventFilter(
                marks=("duplicate",),
                deliveries=((">", 1), ("=", 7)),
                excluded=(EventFilter(marks=("conflict",)),),
            ),
        ),
        (f"delivery:{ID}", EventFilter(ids=(ID,))),
        ("مرحباً data.name:نورة", EventFilter(fields=(("data.name", "نورة"),), search=("مرحباً",))),
    ],
)
def test_a_query_means(text: str, selection: EventFilter) -> None:
    found = parse(text, now=NOW)
    assert found.problems == ()
    assert found.selection == selection
    assert parse(spell(selection), now=NOW).selection == selection


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stat:dead", "`stat` is no filter; did you mean `state`?"),
        (
            "zzz:1",
            f"`zzz` is no filter: they are {', '.join(FILTERS)}, and paths such as `data.zzz`.",
        ),
        ("state:ded", f"`ded` is no state: they are {', '.join(EVENT_STATES)}."),
        ("replay:last", "`last` is no number of a bulk action."),
        ("state:", "`state:` lacks a value."),
        ('type:""', "`type:` lacks a value."),
        ("data.x:", "`data.x:` lacks a value."),
        ("since:tomorrow", "`tomorrow` is no time: give 2026-01-31T12:00:00Z, or 15m, 2h, 7d"),
        ("until:1969-12-31", "`1969-12-31` is no time"),
        ("phone:00", "`00` is no phone number: give its digits, 966500000000."),
        ("state:running", "`state:` is given twice: the first counts."),
        ("-since:2h", "`since:` cannot be negated: give `until:`."),
        ("-order:55", "`order:` cannot be negated."),
        ("-state:ded", "`ded` is no state"),
        ("data.x:>much", "`much` is neither a number nor a time: give 2026-01-31T12:00:00Z"),
        ("is:failed", "No event is `failed`: `is:` takes duplicate or conflict."),
        ("deliveries:many", "`many` is no number of deliveries: give 2, >1 or <=5."),
        ("delivery:790", "`790` is no id of a delivery, which is a UUID."),
        ('"open', "The quote is not closed."),
        ('-"open', "The quote is not closed."),
        ('data.x:"open\\', "The quote is not closed."),
        ("a\x00b", "It has a character that no text can hold"),
        ("data.\ud800:x", "It has a character that no text can hold"),
    ],
)
def test_what_is_not_understood_is_told_and_the_rest_applies(text: str, message: str) -> None:
    query = f"  state:dead {text}"
    found = parse(query, now=NOW)
    (problem,) = found.problems
    assert message in problem.message
    assert problem.message.endswith((".", "?"))
    assert problem.text == text
    assert query[problem.position :] == text
    assert found.selection == EventFilter(state="dead")


def test_only_so_many_parts_count() -> None:
    found = parse("x " * MOST_PARTS + "state:dead y", now=NOW)
    assert found.selection == EventFilter(search=("x",))
    (problem,) = found.problems
    assert problem.text == "state:dead"


pieces = st.sampled_from(
    [
        *(f"{each}:" for each in FILTERS),
        *EVENT_STATES,
        '"',
        "\\",
        " ",
        ":",
        ".",
        "data.",
        "2h",
        "*",
        "-",
        ">",
        "<=",
    ]
)


@settings(max_examples=examples(300))
@given(st.text() | st.lists(pieces | st.text(max_size=3)).map("".join))
@example("since:999999999d until:0001-01-01T00:00:00+14:00")
@example('"' * 5_000)
def test_whatever_is_typed_means_something_and_is_spelled_as_it_was_read(text: str) -> None:
    found = parse(text, now=NOW)
    for problem in found.problems:
        assert text[problem.position :].startswith(problem.text)
    again = parse(spell(found.selection), now=NOW)
    assert again.selection == found.selection
    assert again.problems == ()


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)
names = st.from_regex(r'[^\s":\x00]+', fullmatch=True).filter(str.isprintable)
moments = st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 the strategy's form
numbers = st.integers(-(2**63), 2**63 - 1).map(str)
about = st.one_of(
    st.tuples(st.sampled_from(["conversation", "order", "contact"]), numbers),
    st.tuples(st.just("phone"), (words | numbers).map(normal_phone).filter(bool)),
    st.tuples(st.just("message"), words),
)


def many(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, max_size=3, unique=True).map(tuple)


paths = names | names.map("data.{}".format)
fields = st.tuples(paths, st.just("") | words)
compared = st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", fullmatch=True) | moments.map(
    lambda moment: moment.isoformat().replace("+00:00", "Z")
)
comparisons = st.tuples(paths, st.sampled_from(list(COMPARE)), compared)
deliveries = st.tuples(st.sampled_from(SIGNS), st.integers(0, 10**9 - 1))
alone = st.one_of(
    *(
        st.builds(EventFilter, **{name: values})
        for name, values in {
            "types": words.map(lambda text: (text,)),
            "source": words,
            "processor": words,
            "state": st.sampled_from(EVENT_STATES),
            "error_type": words,
            "key_id": words,
            "fields": fields.map(lambda field: (field,)),
            "comparisons": comparisons.map(lambda comparison: (comparison,)),
            "marks": st.sampled_from(list(MARKS)).map(lambda mark: (mark,)),
            "deliveries": deliveries.map(lambda number: (number,)),
            "search": words.map(lambda text: (text,)),
        }.items()
    )
)
selections = st.builds(
    EventFilter,
    comparisons=many(comparisons),
    marks=many(st.sampled_from(list(MARKS))),
    deliveries=many(deliveries),
    excluded=many(alone),
    ids=many(st.uuids()),
    event_ids=many(words.map(lambda text: f"order.created:{text}")),
    types=many(words),
    source=st.none() | words,
    processor=st.none() | words,
    state=st.none() | st.sampled_from(EVENT_STATES),
    error_type=st.none() | words,
    raised_at=st.none() | st.just("") | words,
    key_id=st.none() | words,
    since=st.none() | moments,
    until=st.none() | moments,
    about=many(about),
    fields=many(fields),
    search=st.none() | many(words).filter(bool),
)


@settings(max_examples=examples(200))
@given(selections)
def test_a_selection_is_read_as_it_was_spelled(selection: EventFilter) -> None:
    found = parse(spell(selection), now=NOW)
    assert found.problems == ()
    assert found.selection == selection
    assert (
        EventFilter.from_json(json.loads(json.dumps(selection.as_json(), default=str))) == selection
    )


def test_every_kind_that_events_concern_has_a_filter() -> None:
    assert set(KINDS) <= set(FILTERS)
