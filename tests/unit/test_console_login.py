"""Logging in to the console: forms, wrong passwords, too many of them."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from starlette.requests import Request

from ingest.console.auth import login, passwords
from ingest.console.auth.credentials import parse_users
from ingest.console.auth.errors import AuthError
from ingest.console.auth.login_page import NO_USERS
from ingest.console.auth.passwords import Passwords
from ingest.console.auth.request_info import local
from ingest.console.auth.throttle import Throttle
from tests.support.asgi import Browser
from tests.support.console import (
    OTHER_PASSWORD,
    PASSWORD,
    TOKEN,
    TOKENS,
    Clock,
    Console,
    console,
    users,
)

ELSEWHERE = [
    "",
    "events",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/a\\b",
    "https://evil.example",
    "http:evil.example",
    "javascript:alert(1)",
    " /events",
    "/\t/evil.example",
    "/\n/evil.example",
    "/ /evil.example",
    "\t//evil.example",
    "/é",
    "/\x00",
    "/" + "x" * 5_000,
]


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def guarded(**more: Any) -> Console:
    return console(console_users=users(), **more)


def error_on(page: str) -> str | None:
    found = re.search(r'<p role="alert">(.*?)</p>', page)
    return found[1] if found else None


@pytest.mark.parametrize("target", ELSEWHERE)
def test_no_target_leads_elsewhere(target: str) -> None:
    assert local(target) == "/"


@pytest.mark.parametrize("target", ["/", "/events", "/events/1?a=b&c=%2F%2Fd", "/a//b", "/.//b"])
def test_a_target_here_is_kept(target: str) -> None:
    assert local(target) == target


def test_the_form_names_its_fields_and_escapes_where_it_leads() -> None:
    page = guarded().browser().get('/login?next=/"><script>').text
    assert "<script>" not in page
    assert "&#34;&gt;&lt;script&gt;" in page
    for name in ("name", "password"):
        assert f'<label for="{name}">' in page
        assert f'id="{name}" name="{name}"' in page
    assert error_on(page) is None


def test_the_right_password_leads_back() -> None:
    browser = guarded().browser()
    answer = browser.log_in("alice", PASSWORD, next="/events?state=dead")
    assert (answer.status, answer.one("location")) == (303, "/events?state=dead")
    assert browser.get("/events").json()["identity"] == ["alice", "operator", "password"]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_login_never_leads_elsewhere(target: str) -> None:
    assert guarded().browser().log_in("alice", PASSWORD, next=target).one("location") == "/"


def test_who_is_logged_in_already_is_led_back() -> None:
    browser = guarded().logged_in()
    assert browser.get("/login?next=/events").one("location") == "/events"
    assert browser.get("/login?next=//evil.example").one("location") == "/"


def test_a_form_that_was_opened_before_another_login_still_works() -> None:
    browser = guarded().browser()
    browser.log_in("alice", PASSWORD)
    form = {"name": "victor", "password": OTHER_PASSWORD}
    assert browser.post("/login", form).status == 303
    assert browser.get("/events").json()["identity"][0] == "victor"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", OTHER_PASSWORD),
        ("nobody", PASSWORD),
        ("", ""),
        ("Alice", PASSWORD),
        ("alice", PASSWORD + " "),
        ("x" * 100_000, "y" * 100_000),
    ],
)
def test_whatever_is_wrong_gets_the_same_sentence(name: str, password: str) -> None:
    browser = guarded().browser()
    answer = browser.log_in(name, password)
    assert (answer.status, error_on(answer.text)) == (403, login.WRONG)
    assert not answer.all("set-cookie")
    assert browser.get("/events").status == 303


def test_a_password_without_end_is_not_hashed() -> None:
    endless = "x" * (passwords.MAX_LENGTH + 1)
    here = console(console_users=users(endless))
    assert here.browser().log_in("alice", endless).status == 403
    console(console_users=users(endless[1:])).logged_in("alice", endless[1:])


def test_an_unknown_name_costs_a_check_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def matches(kept: str, _password: str) -> bool:
        checked.append(kept)
        return False

    monkeypatch.setattr(passwords, "_matches", matches)
    browser = guarded().browser()
    browser.log_in("alice", "wrong")
    browser.log_in("nobody", "wrong")
    costs = [kept.split("$")[:4] for kept in checked]
    assert costs[0] == costs[1]
    assert checked[0] != checked[1]


def test_the_hash_of_nobody_is_one_that_argon2_checks() -> None:
    for given in (users(), None):
        made = Passwords(parse_users(given), random=lambda count: b"\x01" * count)
        with pytest.raises(Exception, match="does not match"):
            PasswordHasher().verify(made._nobodys_hash, "anything")


def test_a_login_from_another_site_is_refused() -> None:
    browser = guarded().browser()
    form = {"name": "alice", "password": PASSWORD}
    crossing = browser.post("/login", form, sec_fetch_site="cross-site")
    assert crossing.status == 403
    assert "ingest_session" not in browser.cookies


def test_five_wrong_passwords_a_minute_are_enough_for_a_name() -> None:
    here = guarded()
    for number in range(login.TRIES_PER_NAME):
        answer = here.browser(client=f"10.0.0.{number}").log_in("alice", "wrong")
        assert answer.status == 403
    here.clock.now += 20
    answer = here.browser(client="10.0.1.1").log_in("alice", PASSWORD)
    assert (answer.status, answer.one("retry-after")) == (429, "40")
    assert error_on(answer.text) == login.TOO_OFTEN
    assert here.browser().log_in("victor", OTHER_PASSWORD).status == 303
    here.clock.now += 40
    assert here.browser().log_in("alice", PASSWORD).status == 303


@pytest.mark.parametrize("clients", [["10.0.0.1"], ["2001:db8::1", "2001:db8::ffff:2"]])
def test_one_address_cannot_try_many_names(clients: list[str]) -> None:
    here = guarded()
    browsers = [here.browser(client=client) for client in clients]
    for number in range(login.TRIES_PER_ADDRESS):
        browsers[number % len(browsers)].log_in(f"name{number}", "wrong")
    assert browsers[0].log_in("alice", PASSWORD).status == 429
    assert here.browser(client="2001:db8:0:1::1").log_in("alice", PASSWORD).status == 303


PROXY = "10.9.0.1"
GUESSER, COLLEAGUE = "203.0.113.9", "198.51.100.2"


def behind_proxy(here: Console, forwarded_for: str, *, proxy: str = PROXY) -> Browser:
    """A browser whose requests a proxy hands on."""
    browser: Browser = here.browser(client=proxy, forwarded_for=forwarded_for)
    return browser


@pytest.mark.parametrize(
    "chain", ["{}", "{}, 10.9.3.4", "10.9.0.9, {}, 10.9.3.4", "1.2.3.4, {}", " {} ", "{}:40123"]
)
def test_behind_a_named_proxy_guesses_lock_out_only_who_guesses(chain: str) -> None:
    here = guarded(trusted_proxies="10.9.0.0/16")
    guesser = behind_proxy(here, chain.format(GUESSER))
    for _ in range(login.TRIES_PER_NAME_AND_ADDRESS):
        assert guesser.log_in("alice", "wrong").status == 403
    for number in range(login.TRIES_PER_ADDRESS):
        guesser.log_in(f"name{number}", "wrong")
    assert guesser.log_in("alice", PASSWORD).status == 429
    assert guesser.log_in("victor", OTHER_PASSWORD).status == 429
    colleague = behind_proxy(here, chain.format(COLLEAGUE))
    assert colleague.log_in("alice", PASSWORD).status == 303


@pytest.mark.parametrize(
    ("client", "chain"), [(PROXY, "10.0.0.{}, " + GUESSER), (GUESSER, "{}.2.3.4")]
)
def test_nobody_chooses_the_address_that_counts(client: str, chain: str) -> None:
    """Neither by writing the header before a proxy adds to it, nor without a proxy."""
    here = guarded(trusted_proxies="10.9.0.0/16")
    for number in range(login.TRIES_PER_NAME_AND_ADDRESS):
        answer = behind_proxy(here, chain.format(number), proxy=client).log_in("alice", "wrong")
        assert answer.status == 403
    last = behind_proxy(here, chain.format(99), proxy=client)
    assert last.log_in("alice", PASSWORD).status == 429


def test_without_a_named_proxy_nobody_is_believed() -> None:
    here = guarded()
    for number in range(login.TRIES_PER_NAME_AND_ADDRESS):
        behind_proxy(here, f"1.2.3.{number}").log_in("alice", "wrong")
    assert behind_proxy(here, COLLEAGUE).log_in("alice", PASSWORD).status == 429


def test_a_session_goes_on_while_its_name_is_tried() -> None:
    here = guarded()
    browser = here.logged_in()
    for _ in range(10):
        here.browser().log_in("alice", "wrong")
    assert browser.get("/events").status == 200


def test_an_own_account_does_not_make_up_for_guesses_at_another() -> None:
    here = guarded()
    for _ in range(login.TRIES_PER_NAME_AND_ADDRESS):
        assert here.browser().log_in("alice", "wrong").status == 403
        assert here.browser().log_in("victor", OTHER_PASSWORD).status == 303
    assert here.browser().log_in("alice", "wrong").status == 429


def test_logging_in_often_is_not_trying_often() -> None:
    here = guarded()
    for _ in range(login.TRIES_PER_ADDRESS + 1):
        here.logged_in()


def test_tries_at_once_are_counted_before_their_outcome() -> None:
    throttle = Throttle(window_s=60, max_keys=10, clock=Clock())
    assert [throttle.take({"a": 3}) for _ in range(5)] == [0, 0, 0, 60, 60]


def test_what_is_refused_for_one_key_is_not_counted_for_the_other() -> None:
    throttle = Throttle(window_s=60, max_keys=10, clock=Clock())
    throttle.take({"a": 1})
    for _ in range(5):
        assert throttle.take({"a": 1, "b": 1}) == 60
    assert throttle.take({"b": 1}) == 0


def test_tries_are_kept_in_bounded_memory() -> None:
    throttle = Throttle(window_s=60, max_keys=100, clock=Clock())
    for number in range(1_000):
        throttle.take({f"key{number}": 5})
    assert len(throttle._attempts) == 100
    for number in range(900, 1_000):
        throttle.give_back({f"key{number}": 5})
    assert not throttle._attempts


def test_a_name_that_is_too_long_is_cut_before_it_is_kept() -> None:
    for client in (None, ("x" * 60_000, 0)):
        request = Request({"type": "http", "client": client, "headers": []})
        assert all(len(key) < 150 for key in login._limits("x" * 100_000, request))


def test_too_many_who_wait_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_MAX_WAITING", 1)

    async def crowd() -> list[object]:
        checks = Passwords(parse_users(users()), random=lambda count: b"x" * count)
        tries = [checks.check("alice", PASSWORD) for _ in range(5)]
        return await asyncio.gather(*tries, return_exceptions=True)

    outcomes = asyncio.run(crowd())
    assert len([each for each in outcomes if isinstance(each, AuthError)]) == 2
    assert not [each for each in outcomes if each is None]


def test_at_most_two_passwords_are_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    lock = threading.Lock()
    running, most = 0, 0

    def matches(_kept: str, _password: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(passwords, "_matches", matches)

    async def crowd() -> None:
        checks = Passwords(parse_users(users()), random=lambda count: b"x" * count)
        await asyncio.gather(*(checks.check("alice", PASSWORD) for _ in range(10)))

    asyncio.run(crowd())
    assert most == 2


def test_when_too_many_wait_the_page_says_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords, "_MAX_WAITING", -passwords._CONCURRENT)
    here = guarded()
    for _ in range(10):  # not counted as tries
        answer = here.browser().log_in("alice", PASSWORD)
        assert (answer.status, answer.one("retry-after")) == (503, "5")


def test_a_failure_is_logged_without_name_or_password(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guarded().browser(client="10.0.0.1").log_in("typed-the-password-here", "hunter2-hunter2")
    assert "hunter2" not in caplog.text
    assert "typed-the-password-here" not in caplog.text


def test_logging_out_ends_the_session_in_the_browser() -> None:
    browser = guarded().logged_in()
    answer = browser.post("/logout", {})
    assert (answer.status, answer.one("location")) == (303, "/login")
    assert "ingest_session" not in browser.cookies
    assert browser.get("/events").status == 303


def test_a_viewer_logs_out() -> None:
    browser = guarded().logged_in("victor", OTHER_PASSWORD)
    assert browser.post("/logout", {}).status == 303


def test_a_link_logs_nobody_out() -> None:
    browser = guarded().logged_in()
    assert browser.get("/logout").status == 405
    assert browser.get("/events").status == 200


def test_without_credentials_there_is_nothing_to_log_in_to() -> None:
    here = console()
    assert here.browser().get("/login?next=/events").one("location") == "/events"


def test_with_tokens_alone_the_page_says_that_nobody_has_a_password() -> None:
    browser = console(console_tokens=TOKENS).browser()
    assert error_on(browser.get("/login").text) == NO_USERS
    assert browser.log_in("deploy", TOKEN).status == 403
