"""Logging in to the console with a real OpenID provider, over HTTP."""

import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ingest.console.auth.oidc.login import TRIES_PER_ADDRESS
from ingest.doctor import examination, login
from ingest.doctor.examination import Step
from ingest.doctor.findings import Finding
from ingest.doctor.setup import Setup
from ingest.settings import load
from tests.support import oidc
from tests.support.asgi import Answer, Browser
from tests.support.console import PASSWORD, TOKENS, Clock, Console, KeptSessions, console, users
from tests.support.oidc import PEOPLE, SECRET, Person, changed, running_provider
from tests.support.ports import free_port
from tests.unit.test_console_login import ELSEWHERE

ORIGIN = "http://127.0.0.1:8001"
CALLBACK = f"{ORIGIN}/login/oidc/callback"
NAMED_ALICE = {"amal-1": PEOPLE["amal-1"] | {"name": "alice"}}
"""Somebody who calls herself as a user of the console is called."""


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A provider that tells claims only where it is asked once more."""
    with running_provider(free_port(), ORIGIN) as running:
        yield running


@pytest.fixture
def person() -> Iterator[Person]:
    with closing(Person()) as visitor:
        yield visitor


def guarded(issuer: str, **more: Any) -> Console:
    """A console with a right clock, users, tokens and the provider."""
    settled: dict[str, Any] = {"console_users": users(), "clock": Clock(time.time())}
    return console(**(settled | {"console_tokens": TOKENS} | oidc.settings(issuer) | more))


def begun(browser: Browser, target: str = "/events?q=a") -> str:
    """Where the console sends a browser."""
    answer = browser.get(f"/login/oidc?next={target}")
    location = answer.one("location")
    assert answer.status == 303, answer.text
    assert location is not None
    return location


def logged_in(browser: Browser, person: Person, subject: str = "amal-1") -> Answer:
    return browser.get(person.log_in(begun(browser), subject))


def identity(browser: Browser) -> Any:
    """Who the console takes the browser for; None: nobody."""
    answer = browser.get("/events")
    return answer.json()["identity"] if answer.status == 200 else None


def error_on(answer: Answer) -> str:
    said = re.search(r'<p role="alert">(.*?)</p>', answer.text)
    assert said, answer.text
    return said[1]


def asked(location: str) -> dict[str, str]:
    """The parameters of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


# Who gets in.


@pytest.mark.parametrize(
    ("subject", "name", "role"),
    [("amal-1", "Amal Haddad", "operator"), ("vera-2", "Vera Lind", "viewer")],
)
def test_a_claim_of_the_provider_gives_the_role(
    issuer: str, person: Person, subject: str, name: str, role: str
) -> None:
    browser = guarded(issuer).browser()
    answer = logged_in(browser, person, subject)
    assert (answer.status, answer.one("location")) == (303, "/events?q=a")
    assert identity(browser) == [name, role, "oidc"]
    assert browser.post("/replay", {}).status == (200 if role == "operator" else 403)


def test_whoever_has_no_role_does_not_get_in(issuer: str, person: Person) -> None:
    browser = guarded(issuer).browser()
    answer = logged_in(browser, person, "sami-3")
    assert answer.status == 403
    assert error_on(answer).startswith("Example ID knows you as Sami Noor, but nothing")
    assert identity(browser) is None


def test_a_console_without_users_has_the_provider_alone(issuer: str, person: Person) -> None:
    browser = guarded(issuer, console_users=None, console_host="0.0.0.0").browser()  # noqa: S104
    page = browser.get("/login?next=/failures").text
    assert "Log in with Example ID" in page
    assert 'href="/login/oidc?next=/failures"' in page
    assert 'type="password"' not in page
    assert logged_in(browser, person).status == 303


def test_who_is_renamed_is_the_same_and_no_user_of_that_name(person: Person) -> None:
    port = free_port()
    with running_provider(port, ORIGIN) as issuer:
        here = guarded(issuer)
        browser = here.browser()
        logged_in(browser, person)
        browser.post("/replay", {})
    with running_provider(port, ORIGIN, people=NAMED_ALICE), closing(Person()) as renamed:
        logged_in(other := here.browser(), renamed)
        other.post("/replay", {})
    here.logged_in("alice").post("/replay", {})
    assert [change["by"] for change in here.changes] == ["Amal Haddad", "alice", "alice"]
    assert [change["who"] for change in here.changes] == [
        f"amal-1 at {issuer}",
        f"amal-1 at {issuer}",
        "alice",
    ]


def test_keys_that_the_provider_changes_are_read_again(person: Person) -> None:
    port = free_port()
    with running_provider(port, ORIGIN) as issuer:
        here = guarded(issuer)
        logged_in(here.browser(), person)
    # This one tells claims in the token itself.
    with running_provider(port, ORIGIN, conformIdTokenClaims=False), closing(Person()) as again:
        assert logged_in(browser := here.browser(), again).status == 303
        assert identity(browser) == ["Amal Haddad", "operator", "oidc"]


# Sessions.


def test_a_session_ends_after_its_time_and_the_role_is_asked_for_again(
    issuer: str, person: Person
) -> None:
    here = guarded(issuer, oidc_session_s=600)
    browser = here.browser()
    logged_in(browser, person)
    here.clock.now += 599
    assert identity(browser) is not None
    here.clock.now += 1
    assert identity(browser) is None


@pytest.mark.parametrize(
    "more",
    [
        {"oidc_operators": "others"},
        {"oidc_viewers": "support,staff"},
        {"oidc_client_id": "other"},
        dict.fromkeys(oidc.settings("")),
    ],
    ids=["operators", "viewers", "client", "off"],
)
def test_sessions_end_when_what_gives_roles_changes(
    issuer: str, person: Person, more: dict[str, Any]
) -> None:
    kept = KeptSessions()
    browser = guarded(issuer, kept=kept).browser()
    logged_in(browser, person)
    browser.app = guarded(issuer, kept=kept).app
    assert identity(browser) is not None
    browser.app = guarded(issuer, kept=kept, **more).app
    assert identity(browser) is None


def test_logging_out_ends_every_copy_of_the_session_and_offers_to_end_the_providers(
    issuer: str, person: Person
) -> None:
    here = guarded(issuer)
    browser = here.browser()
    logged_in(browser, person)
    copy = here.browser(cookies=dict(browser.cookies))
    location = browser.post("/logout", {}).one("location")
    assert location == "/login?left"
    assert identity(copy) is None
    page = browser.get(location).text
    assert 'At Example ID you may still be logged in: <a href="/logout/oidc">' in page
    address = browser.get("/logout/oidc").one("location")
    assert address is not None
    assert asked(address)["post_logout_redirect_uri"] == f"{ORIGIN}/login"
    assert person.client.get(address).status_code == 200


def test_nothing_of_a_session_that_was_planted_stays(issuer: str, person: Person) -> None:
    browser = guarded(issuer).browser()
    location = begun(browser)
    planted = dict(browser.cookies)
    browser.get(person.log_in(location, "amal-1"))
    assert browser.cookies != planted
    assert identity(guarded(issuer).browser(cookies=planted)) is None


@pytest.mark.parametrize("target", [each for each in ELSEWHERE if each.isascii()][:9])
def test_a_log_in_never_leads_elsewhere(issuer: str, person: Person, target: str) -> None:
    browser = guarded(issuer).browser()
    answer = browser.get(person.log_in(begun(browser, target), "amal-1"))
    assert answer.one("location") == "/"


def test_many_tabs_and_long_searches_fit_a_cookie(issuer: str, person: Person) -> None:
    browser = guarded(issuer).browser()
    for length in (10, 1_400, 3_000, 700, 700, 20):
        location = begun(browser, "/events?q=" + "x" * length)
        assert len(browser.cookies["ingest_session"]) < 4_000
    assert browser.get(person.log_in(location, "amal-1")).one("location") == "/events?q=" + "x" * 20


# What is sent to the provider.


def test_the_code_flow_is_asked_for_with_pkce_state_and_nonce(issuer: str) -> None:
    browser = guarded(issuer).browser()
    first, second = asked(begun(browser)), asked(begun(browser))
    assert first["response_type"] == "code"
    assert first["redirect_uri"] == CALLBACK
    assert first["scope"] == "openid profile email"
    assert first["code_challenge_method"] == "S256"
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) == 43
        assert first[name] != second[name]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"console_url": "https://console.example/"}, "https://console.example"),
        ({"console_tls_proxy": True}, "https://console.test:9"),
        ({}, "http://console.test:9"),
    ],
    ids=["its own address", "behind TLS", "neither"],
)
def test_the_way_back_is_the_consoles_address_as_browsers_know_it(
    issuer: str, more: dict[str, Any], expected: str
) -> None:
    browser = guarded(issuer, **more).browser(host="console.test:9")
    assert asked(begun(browser))["redirect_uri"] == f"{expected}/login/oidc/callback"


# What fails.


def test_whoever_changes_their_mind_is_told(issuer: str, person: Person) -> None:
    browser = guarded(issuer).browser()
    answer = browser.get(person.cancel(begun(browser)))
    assert answer.status == 403
    assert error_on(answer) == (
        "Example ID did not let you in: the log-in was denied or cancelled there."
    )
    assert 'href="/login/oidc?next=/events%3Fq%3Da"' in answer.text


def test_an_answer_that_another_browser_asked_for_counts_for_nothing(
    issuer: str, person: Person
) -> None:
    here = guarded(issuer)
    way_back = person.log_in(begun(here.browser()), "amal-1")
    begun(begun_too := here.browser())
    for browser in (here.browser(), begun_too):
        answer = browser.get(way_back)
        assert answer.status == 400
        assert "was not begun in this browser" in error_on(answer)
        assert identity(browser) is None


def test_an_answer_counts_once(issuer: str, person: Person) -> None:
    here = guarded(issuer)
    browser = here.browser()
    location = begun(browser)
    before = dict(browser.cookies)
    way_back = person.log_in(location, "amal-1")
    assert browser.get(way_back).status == 303
    answer = browser.get(way_back)
    assert "was not begun in this browser" in error_on(answer)
    copy = here.browser(cookies=before)  # it knows the state, and the provider the code
    answer = copy.get(way_back)
    assert answer.status == 400
    assert error_on(answer) == (
        "Example ID says that this log-in has expired or was used: begin again."
    )
    assert identity(copy) is None


def test_a_log_in_that_took_too_long_is_begun_again(issuer: str, person: Person) -> None:
    here = guarded(issuer)
    browser = here.browser()
    way_back = person.log_in(begun(browser), "amal-1")
    here.clock.now += 600
    assert "it took too long" in error_on(browser.get(way_back))


def test_the_code_of_another_log_in_counts_for_nothing(issuer: str, person: Person) -> None:
    browser = guarded(issuer).browser()
    first, second = begun(browser), begun(browser)
    codes = [asked(person.log_in(location, "amal-1"))["code"] for location in (first, second)]
    answer = browser.get(
        f"/login/oidc/callback?state={asked(first)['state']}&code={codes[1]}&iss={issuer}"
    )
    assert "has expired or was used" in error_on(answer)
    assert identity(browser) is None


@pytest.mark.parametrize("sender", ["", "https://evil.example"])
def test_an_answer_of_another_provider_counts_for_nothing(
    issuer: str, person: Person, sender: str
) -> None:
    browser = guarded(issuer).browser()
    answer = browser.get(changed(person.log_in(begun(browser), "amal-1"), iss=sender))
    assert "another provider has answered" in error_on(answer)
    assert identity(browser) is None


def test_a_token_that_was_made_for_another_log_in_counts_for_nothing(
    issuer: str, person: Person
) -> None:
    browser = guarded(issuer).browser()
    answer = browser.get(person.log_in(changed(begun(browser), nonce="another"), "amal-1"))
    assert answer.status == 502
    assert error_on(answer).startswith("What Example ID says of you cannot be trusted")
    assert identity(browser) is None


@pytest.mark.parametrize(
    ("off_s", "is_trusted"), [(-50, True), (650, True), (-90, False), (700, False)]
)
def test_clocks_may_differ_by_a_minute(
    issuer: str, person: Person, off_s: int, is_trusted: bool
) -> None:
    """Its tokens are good for 600 s."""
    browser = guarded(issuer, clock=Clock(time.time() + off_s)).browser()
    answer = logged_in(browser, person)
    assert answer.status == (303 if is_trusted else 502), answer.text
    assert (identity(browser) is not None) is is_trusted


def test_a_wrong_secret_is_said_and_passwords_work(issuer: str, person: Person) -> None:
    browser = guarded(issuer, oidc_client_secret="another secret").browser()
    answer = logged_in(browser, person)
    assert answer.status == 502
    assert error_on(answer) == (
        "Example ID does not accept this console&#39;s own credentials:"
        " INGEST_OIDC_CLIENT_ID or INGEST_OIDC_CLIENT_SECRET is wrong."
    )
    assert browser.log_in("alice", PASSWORD).status == 303


def test_while_the_provider_is_away_passwords_and_sessions_work(person: Person) -> None:
    port = free_port()
    with running_provider(port, ORIGIN) as issuer:
        here = guarded(issuer)
        within = here.browser()
        logged_in(within, person)
        way_back = person.log_in(begun(half_way := here.browser()), "amal-1")
    away = "Example ID does not answer: try again in a while."
    here.clock.now += 601  # what it said of itself is asked for again
    answer = here.browser().get("/login/oidc")
    assert (answer.status, error_on(answer)) == (502, away)
    here.clock.now -= 601
    assert error_on(half_way.get(way_back)) == away
    assert half_way.log_in("alice", PASSWORD).status == 303
    assert identity(within) == ["Amal Haddad", "operator", "oidc"]


def test_an_address_that_is_no_provider_is_said(issuer: str) -> None:
    answer = guarded(f"{issuer}/shop").browser().get("/login/oidc")
    assert answer.status == 502
    assert "cannot be used for logging in: it answers 404 to" in error_on(answer)


def test_a_provider_that_calls_itself_something_else_is_refused(issuer: str) -> None:
    answer = guarded(f"{issuer}/").browser().get("/login/oidc")
    assert "it calls itself by another address than INGEST_OIDC_ISSUER" in error_on(answer)


def test_nobody_makes_the_console_ask_without_end(issuer: str) -> None:
    here = guarded(issuer)
    for _ in range(TRIES_PER_ADDRESS):
        here.browser().get("/login/oidc/callback?state=x&code=y")
    answer = here.browser().get("/login/oidc")
    assert answer.status == 429
    assert here.browser(client="203.0.113.9").get("/login/oidc").status == 303


def test_nothing_that_a_link_says_is_shown(issuer: str) -> None:
    answer = (
        guarded(issuer)
        .browser()
        .get("/login/oidc/callback?error=call_0900&error_description=call%200900&state=x")
    )
    assert "0900" not in answer.text


def test_no_token_no_code_and_no_secret_is_logged(
    issuer: str, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    from ingest import logs

    logs.configure("debug", "json")
    logging.getLogger().addHandler(caplog.handler)
    browser = guarded(issuer).browser()
    location = begun(browser)
    way_back = person.log_in(location, "amal-1")
    browser.get(way_back)
    browser.get(way_back)
    assert "logged_in" in caplog.text
    assert "state_unknown" in caplog.text
    for secret in (*(asked(way_back)[name] for name in ("code", "state")), SECRET):
        assert secret not in caplog.text
    assert "eyJ" not in caplog.text


# The settings, and what looks at them.


def examined(**more: Any) -> list[Finding]:
    setup = Setup(settings=load(**more), clock=lambda: datetime.now(UTC))
    return examination.examine(setup, [Step("the log-in", login.check)])


def test_doctor_says_that_the_provider_knows_the_console(issuer: str) -> None:
    assert not examined()
    found = examined(**oidc.settings(issuer, console_url=ORIGIN))
    assert [(finding.slug, finding.sentence) for finding in found] == [
        (
            "oidc",
            (
                "People log in with Example ID: ingest-operators in groups are operators and"
                " support in groups are viewers."
            ),
        )
    ]


def test_doctor_says_what_keeps_everybody_out(issuer: str) -> None:
    wrong = oidc.settings(issuer, console_url=ORIGIN, oidc_client_secret="wrong")
    away = oidc.settings(f"http://127.0.0.1:{free_port()}")
    half = oidc.settings(issuer, oidc_client_secret=None)
    slugs = [finding.slug for more in (wrong, away, half) for finding in examined(**more)]
    assert slugs == ["oidc_refuses", "oidc_away", "bad_oidc"]


def test_nothing_of_the_library_is_imported_while_it_is_off() -> None:
    code = (
        "import sys, time, os; from ingest.settings import load;"
        "from ingest.console.auth import middleware;"
        "middleware.create(load(), None, clock=time.time, random=os.urandom).routes(None);"
        "print(sorted({'authlib', 'httpx2', 'joserfc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
