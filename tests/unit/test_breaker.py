"""What a breaker takes for a target that is down, and what opens and closes it."""

import http.client
import itertools
import math
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from ingest.store.pipeline.breaker_state import Sign, State, decide
from tests.support.ports import free_port
from workers import Breaker, Discard, HTTPStatus5xx, HTTPStatusIn, RetryAfter, Snooze, processor
from workers.breaker import back_in_s, status_of
from workers.destinations import GoneAway

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DOWN = Breaker()


def raised(call: Callable[[], object]) -> BaseException:
    """What a call raises, with its chain."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever the library raises
        call()
    return caught.value


def of_httpx(status: int, **headers: str) -> BaseException:
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://t"))
    return raised(response.raise_for_status)


def of_requests(status: int, **headers: str) -> BaseException:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return raised(response.raise_for_status)


def of_aiohttp(status: int, **headers: str) -> BaseException:
    return aiohttp.ClientResponseError(
        None,  # type: ignore[arg-type]
        (),
        status=status,
        headers=headers,  # type: ignore[arg-type]
    )


def of_urllib(status: int, **headers: str) -> BaseException:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError("http://t", status, "no", message, None)


@dataclass
class OfASdk(Exception):
    """As many clients of services have it."""

    status_code: int


LIBRARIES = [of_httpx, of_requests, of_aiohttp, of_urllib]


@pytest.mark.parametrize("answer", LIBRARIES)
def test_statuses_are_known_whatever_library_raised_them(answer: Any) -> None:
    assert DOWN.sign_of(answer(503)) is Sign.DOWN
    assert DOWN.sign_of(answer(500)) is Sign.DOWN
    assert DOWN.sign_of(answer(404)) is Sign.UP
    assert DOWN.sign_of(answer(429)) is Sign.UP
    assert Breaker(on=HTTPStatusIn(frozenset({429}))).sign_of(answer(429)) is Sign.DOWN
    assert Breaker(on=ConnectionError).sign_of(answer(503)) is Sign.UP


def test_statuses_may_be_any_collection_of_them() -> None:
    assert HTTPStatusIn({429, 503}) == HTTPStatusIn([503, 429])
    assert HTTPStatusIn({429, 503})(of_urllib(503))
    assert hash(HTTPStatusIn({429})) == hash(HTTPStatusIn((429,)))


@pytest.mark.parametrize("statuses", [503, "503", (), {50}, ["503"], range(0, 600)])
def test_statuses_that_no_answer_has_are_refused(statuses: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="HTTPStatusIn takes"):
        HTTPStatusIn(statuses)


@pytest.mark.parametrize("answer", LIBRARIES)
def test_retry_after_is_read_whatever_library_raised_it(answer: Any) -> None:
    assert back_in_s(answer(503, **{"Retry-After": "120"}), now=NOW) == 120
    date = "Sun, 29 Nov 2026 12:01:00 GMT"
    assert back_in_s(answer(503, **{"Retry-After": date}), now=NOW) == 60
    assert back_in_s(answer(503, **{"Retry-After": "soon"}), now=NOW) is None
    assert back_in_s(answer(503), now=NOW) is None
    assert back_in_s(RetryAfter("busy", 7)) == 7
    assert (
        back_in_s(RetryAfter("away", 10**12)) == back_in_s(RetryAfter("away", math.inf)) == 86_400
    )
    assert back_in_s(RetryAfter("away", int("9" * 400))) == 86_400
    assert back_in_s(RetryAfter("nonsense", math.nan)) is None
    far = "Mon, 01 Jan 99999999999 00:00:00 GMT"
    assert back_in_s(answer(503, **{"Retry-After": far}), now=NOW) is None


@pytest.mark.parametrize(
    "connect",
    [
        lambda url: httpx.get(url),
        lambda url: requests.get(url, timeout=5),
        lambda url: urllib.request.urlopen(url, timeout=5),  # noqa: S310
        lambda url: http.client.HTTPConnection("127.0.0.1", int(url.split(":")[-1])).request(
            "GET", "/"
        ),
    ],
)
def test_a_refused_connection_is_one_whatever_library_met_it(
    connect: Callable[[str], object],
) -> None:
    error = raised(lambda: connect(f"http://127.0.0.1:{free_port()}"))
    assert Breaker(on=ConnectionError).sign_of(error) is Sign.DOWN
    assert Breaker(on=TimeoutError).sign_of(error) is None


@pytest.mark.parametrize(
    "connect",
    [
        lambda url: httpx.get(url, timeout=0.05),
        lambda url: requests.get(url, timeout=0.05),
        lambda url: urllib.request.urlopen(url, timeout=0.05),  # noqa: S310
    ],
)
def test_so_is_a_timeout(connect: Callable[[str], object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = raised(lambda: connect(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert Breaker(on=TimeoutError).sign_of(error) is Sign.DOWN


def test_an_error_is_read_with_those_that_it_was_raised_from() -> None:
    def from_it() -> None:
        try:
            raise ConnectionResetError
        except ConnectionError as error:
            raise ValueError("our own") from error

    def while_handling_it() -> None:
        try:
            raise ConnectionResetError
        except ConnectionError:
            raise KeyError("fallback")  # noqa: B904

    def hidden() -> None:
        try:
            raise ConnectionResetError
        except ConnectionError:
            raise KeyError("our own") from None

    assert DOWN.sign_of(raised(from_it)) is Sign.DOWN
    assert DOWN.sign_of(raised(while_handling_it)) is Sign.DOWN
    assert DOWN.sign_of(raised(hidden)) is Sign.DOWN


def test_a_chain_that_never_ends_is_read_to_an_end() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert DOWN.sign_of(one) is None


def test_an_error_that_counts_as_false_is_read_with_the_others() -> None:
    class Many(ConnectionError):
        def __len__(self) -> int:
            return 0

    error = ValueError()
    error.__cause__ = Many()
    assert DOWN.sign_of(error) is Sign.DOWN


def test_what_the_processor_decides_itself_says_nothing() -> None:
    for decision in (Discard("no"), Snooze(5)):
        decision.__cause__ = ConnectionError()
        assert DOWN.sign_of(decision) is None


def test_a_discard_that_is_declared_an_answer_says_that_the_target_is_there() -> None:
    class Refused(Discard):
        is_answer = True

    assert DOWN.sign_of(Refused("never")) is DOWN.sign_of(GoneAway("HTTP 410")) is Sign.UP


def test_errors_that_cannot_be_looked_at_say_nothing() -> None:
    class Hostile(Exception):
        @property
        def response(self) -> object:
            raise RuntimeError("there is none")

        code = "08006"

    assert status_of(Hostile()) is None
    assert DOWN.sign_of(Hostile()) is None
    assert status_of(OfASdk(502)) == 502
    error = OfASdk(True)
    assert status_of(error) is None


def test_a_function_of_ones_own_says_what_is_down() -> None:
    def busy(error: BaseException) -> bool:
        return "try later" in str(error)

    def broken(error: BaseException) -> bool:
        raise RuntimeError

    assert Breaker(on=busy).sign_of(ValueError("try later")) is Sign.DOWN
    assert Breaker(on=[busy, KeyError]).sign_of(ValueError("no")) is None
    assert Breaker(on=broken).sign_of(ValueError("no")) is None
    assert Breaker(on=(busy, KeyError, HTTPStatus5xx)).watches == "busy, KeyError, HTTPStatus5xx"


@pytest.mark.parametrize(
    ("declared", "kind", "sentence"),
    [
        ({"on": ()}, ValueError, "a breaker needs an error to open on"),
        ({"on": (int,)}, TypeError, "on= has int, which is no exception class"),
        ({"on": "ConnectionError"}, TypeError, "on= has 'ConnectionError': it takes exception"),
        ({"on": (Snooze,)}, ValueError, "on= has Snooze, which says nothing of the target"),
        ({"after": 0}, ValueError, "after= must be from 1 to 1,000,000"),
        ({"after": 2.5}, TypeError, "after= is how many attempts in a row: a whole number"),
        ({"after": True}, TypeError, "after= is how many attempts in a row: a whole number"),
        ({"probe_every_s": 0}, ValueError, "probe_every_s= must be above 0 and at most 86,400"),
        ({"after": math.nan}, TypeError, "after= is how many attempts in a row: a whole number"),
        ({"after": math.inf}, TypeError, "after= is how many attempts in a row: a whole number"),
        ({"after": "10"}, TypeError, "after= is how many attempts in a row: a whole number"),
        ({"after": -1}, ValueError, "after= must be from 1 to 1,000,000"),
        ({"after": 10**400}, ValueError, "after= must be from 1 to 1,000,000"),
        ({"probe_every_s": math.nan}, ValueError, "probe_every_s= must be above 0"),
        ({"probe_every_s": math.inf}, ValueError, "probe_every_s= must be above 0"),
        ({"probe_every_s": -1}, ValueError, "probe_every_s= must be above 0"),
        ({"probe_every_s": 10**400}, ValueError, "probe_every_s= must be above 0"),
        ({"probe_every_s": True}, TypeError, "probe_every_s= is a number of seconds"),
        ({"probe_every_s": "30"}, TypeError, "probe_every_s= is a number of seconds"),
    ],
)
def test_what_is_no_breaker_is_refused_with_a_sentence(
    declared: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence.replace("(", r"\(")):
        Breaker(**declared)


def test_a_processor_takes_a_breaker_only() -> None:
    with pytest.raises(TypeError, match="breaker= takes a Breaker"):
        processor("order.created", breaker=10)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt that ended without success."""

    id: int
    sign: Sign | None
    attempt: int = 1
    error_type: str | None = "ConnectionError"
    target_back_in_s: float | None = None


kinds = [Sign.DOWN, Sign.DOWN, Sign.DOWN, Sign.DOWN, Sign.UP, Sign.OVER, None]
signs = st.lists(st.sampled_from(kinds), max_size=30)


@given(signs=signs, opens_after=st.integers(1, 6), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_it_opens_by_so_many_in_a_row_and_no_fewer_however_they_are_told(
    signs: list[Sign | None], opens_after: int, cuts: list[int]
) -> None:
    attempts = [Attempt(id=number, sign=sign) for number, sign in enumerate(signs)]
    bounds = sorted({0, len(signs), *(cut for cut in cuts if cut < len(signs))})
    state, uncounted = State(), set[int]()
    for begin, end in itertools.pairwise(bounds):
        decision = decide(state, attempts[begin:end], opens_after=opens_after)
        state = decision.state
        uncounted |= decision.uncounted
    row, counted, opened = 0, [], False
    for attempt in attempts:
        if attempt.sign in (Sign.DOWN, Sign.OVER) and not opened:
            row += attempt.sign is Sign.DOWN
            counted.append(attempt.id)
        elif attempt.sign is Sign.UP and not opened:
            row = 0
        opened = opened or row >= opens_after
    assert (state.is_open, state.failures) == (opened, row)
    assert uncounted == {
        one.id for one in attempts if one.sign in (Sign.DOWN, Sign.OVER) and one.id not in counted
    }


@pytest.mark.parametrize(
    ("sign", "after"),
    [
        (Sign.DOWN, State(failures=4, is_open=True)),
        (None, State(failures=3, is_open=True)),
        (Sign.OVER, State(failures=3, is_open=True)),
        (Sign.UP, State()),
    ],
)
def test_a_probe_counts_and_ends(sign: Sign | None, after: State) -> None:
    before = State(failures=3, is_open=True, probe=(7, 2))
    decision = decide(before, [Attempt(id=7, attempt=2, sign=sign)], opens_after=3)
    assert decision.state == after
    assert decision.uncounted == frozenset()
    stale = decide(before, [Attempt(id=7, attempt=1, sign=sign)], opens_after=3)
    assert stale.state == before
    was_down = sign in (Sign.DOWN, Sign.OVER)
    assert stale.uncounted == (frozenset({7}) if was_down else frozenset())
