"""The door of the console: who gets in, and what gets a change through."""

import asyncio
import json
import re
from base64 import b64decode, b64encode
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from itsdangerous import TimestampSigner
from starlette.types import Message

from ingest.console.auth.headers import HEADERS
from ingest.console.auth.sessions import LIFETIME_S
from ingest.errors import SettingsError
from tests.support.asgi import Answer, Browser, ask, run
from tests.support.console import (
    OTHER_PASSWORD,
    PASSWORD,
    START,
    TEMPLATES,
    TOKEN,
    TOKENS,
    VIEWER_TOKEN,
    Clock,
    Console,
    KeptSessions,
    console,
    users,
)

OWN_HOST = ("host", "127.0.0.1:8001")
FORM = ("content-type", "application/x-www-form-urlencoded")
ANYWHERE = "0.0.0.0"  # noqa: S104 - what is refused, or guarded
JSON = ("content-type", "application/json")


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def opened() -> Console:
    """A console without credentials."""
    return console()


def guarded(**more: Any) -> Console:
    """A console with users and tokens."""
    return console(**({"console_users": users(), "console_tokens": TOKENS} | more))


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


# Where it listens.


@pytest.mark.parametrize("host", [ANYWHERE, "::", "192.168.1.2", "console.example", ""])
def test_without_credentials_it_refuses_to_listen_where_others_reach_it(host: str) -> None:
    with pytest.raises(SettingsError, match=r"refuses to listen on .* without credentials"):
        console(console_host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "localhost", "::1"])
def test_without_credentials_it_listens_for_this_machine(host: str) -> None:
    assert console(console_host=host).browser().get("/").status == 200


@pytest.mark.parametrize("given", [{"console_users": users()}, {"console_tokens": TOKENS}])
def test_with_credentials_it_listens_anywhere(given: dict[str, Any]) -> None:
    answer = console(console_host=ANYWHERE, **given).browser(host="console.example").get("/")
    assert answer.status == 303


# Without credentials.


def test_without_credentials_everybody_here_is_the_operator() -> None:
    shown = opened().browser().get("/events").json()
    assert shown["identity"] == ["local", "operator", "loopback"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8001", "127.0.0.1:9", "127.8.9.1", "[::1]:8001", "[::1]"]
)
def test_without_credentials_it_goes_by_the_names_of_this_machine(host: str) -> None:
    assert console(console_host="127.8.9.1").browser(host=host).get("/").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8001",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io:8001",
        "10.0.0.1",
        "[2001:db8::1]:8001",
        ANYWHERE,
        "2130706433",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(host: str) -> None:
    for target in ("/", "/api/v1/events", "/static/app.css", "/login"):
        assert opened().browser(host=host).get(target).status == 400


@pytest.mark.parametrize(
    "host", ["", "local host", "a@localhost", "localhost:x", "::1", "localhost/", "localhost, a"]
)
def test_what_is_no_host_is_a_bad_request(host: str) -> None:
    assert opened().browser(host=host).get("/").status == 400


def test_a_request_without_a_host_is_a_bad_request() -> None:
    assert ask(opened().app, "GET", "/").status == 400


@pytest.mark.parametrize(
    "header", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"]
)
def test_without_credentials_nothing_comes_through_a_proxy(header: str) -> None:
    assert ask(opened().app, "GET", "/", [OWN_HOST, (header, "203.0.113.9")]).status == 403


def test_without_credentials_no_other_machine_is_answered() -> None:
    assert opened().browser(client="192.168.1.7").get("/").status == 403
    assert opened().browser(client="::ffff:127.0.0.1").get("/").status == 200
    assert ask(opened().app, "GET", "/", [OWN_HOST], client=None).status == 200


def test_without_credentials_a_page_of_ours_changes_something() -> None:
    here = opened()
    browser = here.browser()
    answer = browser.post("/replay", {"id": "7"})
    assert answer.status == 200
    assert here.changes[0]["by"] == "local"
    assert here.changes[0]["form"]["id"] == "7"


def test_without_credentials_a_program_changes_something_with_json() -> None:
    here = opened()
    answer = ask(here.app, "POST", "/api/v1/replay", [OWN_HOST, JSON], b'{"id": 7}')
    assert answer.status == 200
    assert here.changes[0]["body"] == b'{"id": 7}'


def test_a_program_needs_a_token_where_there_are_credentials() -> None:
    assert ask(guarded().app, "POST", "/api/v1/replay", [OWN_HOST, JSON], b"{}").status == 401


# Who asks.


def test_a_page_leads_to_the_login_and_back() -> None:
    answer = guarded().browser().get("/events?state=dead&type=a%20b")
    assert answer.status == 303
    assert answer.one("location") == "/login?next=/events%3Fstate%3Ddead%26type%3Da%2520b"


def test_a_form_that_was_sent_too_late_leads_to_the_login() -> None:
    answer = guarded().browser().post("/replay", {})
    assert (answer.status, answer.one("location")) == (303, "/login")


def test_a_page_that_refreshes_itself_is_told_that_its_session_has_ended() -> None:
    """It says so, and leads to the login itself: a redirect would put the login in its place."""
    answer = guarded().browser().get("/events", x_refresh="1")
    assert (answer.status, answer.body, answer.one("location")) == (401, b"", None)


def test_the_api_says_that_it_wants_a_token() -> None:
    answer = guarded().browser().get("/api/v1/events", x_refresh="1")
    assert answer.status == 401
    assert answer.one("www-authenticate") == "Bearer"
    assert answer.json()["error"] == "unauthenticated"
    assert answer.json()["message"]


@pytest.mark.parametrize("target", ["/static/app.css", "/login", "/health/live"])
def test_what_is_open_needs_nobody(target: str) -> None:
    assert guarded().browser().get(target).status == 200


@pytest.mark.parametrize("target", ["/static/app.css", "/health/live"])
def test_what_is_open_to_look_at_is_not_open_to_change(target: str) -> None:
    assert guarded().browser().post(target, {}).status == 303


@pytest.mark.parametrize(
    "target", ["/static", "/login/", "/login/x", "/health/live/", "/LOGIN", "//login", "/api"]
)
def test_what_only_looks_open_is_not(target: str) -> None:
    assert guarded().browser().get(target).status in (303, 401)


def test_the_probe_may_name_any_host() -> None:
    for here in (opened(), guarded(console_allowed_hosts="console.example")):
        assert here.browser(host="10.1.2.3:8001").get("/health/live").status == 200


def test_only_the_named_hosts_are_answered() -> None:
    here = guarded(console_allowed_hosts="Console.example, other.example")
    assert here.browser(host="console.example:8443").get("/login").status == 200
    assert here.browser(host="OTHER.example").get("/login").status == 200
    assert here.browser(host="evil.example").get("/login").status == 400
    assert here.browser(host="127.0.0.1:8001").get("/login").status == 400


@pytest.mark.parametrize(
    ("named", "host"),
    [
        ("::1", "[::1]:8001"),
        ("[2001:db8::1]", "[2001:DB8::1]"),
        ("*.example.com", "a.example.com:8443"),
        ("10.1.2.3", "10.1.2.3"),
        ("*", "whatever.example"),
    ],
)
def test_hosts_are_named_as_people_write_them(named: str, host: str) -> None:
    here = guarded(console_allowed_hosts=named)
    assert here.browser(host=host).get("/login").status == 200


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    run(guarded().app, {"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


# Sessions.


def test_a_session_knows_its_user_and_role() -> None:
    here = guarded()
    alice = here.logged_in().get("/events").json()["identity"]
    victor = here.logged_in("victor", OTHER_PASSWORD).get("/events").json()["identity"]
    assert alice == ["alice", "operator", "password"]
    assert victor == ["victor", "viewer", "password"]


def test_the_session_cookie_is_for_this_site_and_no_script() -> None:
    browser = guarded().browser()
    answer = browser.log_in("alice", PASSWORD)
    (cookie,) = SimpleCookie("\n".join(answer.all("set-cookie"))).values()
    assert cookie.key == "ingest_session"
    assert cookie["httponly"]
    assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("lax", "/", "")
    assert cookie["max-age"] == str(LIFETIME_S) == str(12 * 3_600)
    assert not cookie["secure"]


def test_behind_tls_cookies_are_secure_and_for_this_host_alone() -> None:
    browser = guarded(console_tls_proxy=True).browser(host="console.example")
    origin = "https://console.example"
    form = {"name": "alice", "password": PASSWORD}
    answer = browser.post("/login", form, origin=origin)
    (session,) = answer.all("set-cookie")
    assert session.startswith("__Host-ingest_session=")
    assert session.endswith("; path=/; Max-Age=43200; httponly; samesite=lax; secure")
    assert "domain" not in session.lower()
    assert browser.get("/events").json()["identity"][0] == "alice"


def test_behind_tls_a_cookie_without_the_prefix_counts_for_nothing() -> None:
    kept = KeptSessions()
    cookie = guarded(kept=kept).logged_in().cookies["ingest_session"]
    here = guarded(kept=kept, console_tls_proxy=True)
    planted, real = ({name: cookie} for name in ("ingest_session", "__Host-ingest_session"))
    assert here.browser(cookies=planted).get("/events").status == 303
    assert here.browser(cookies=real).get("/events").status == 200


def test_a_session_ends_after_twelve_hours() -> None:
    here = guarded()
    browser = here.logged_in()
    here.clock.now += LIFETIME_S - 1
    assert browser.get("/events").status == 200
    here.clock.now += 1
    assert browser.get("/events").status == 303


def test_a_session_survives_a_restart() -> None:
    before = guarded()
    cookies = before.logged_in().cookies
    assert guarded(kept=before.kept).browser(cookies=cookies).get("/events").status == 200


def test_who_knows_the_password_hashes_makes_no_session() -> None:
    """The key has nothing to do with them: another installation with the same users has another."""
    cookies = guarded().logged_in().cookies
    assert guarded().browser(cookies=cookies).get("/events").status == 303


def test_who_knows_the_key_and_no_password_hash_makes_no_session() -> None:
    here = guarded()
    real = here.logged_in().cookies["ingest_session"]
    session = json.loads(b64decode(real.split(".")[0]))
    for forged in (session | {"name": "victor"}, session | {"password": "0" * 16}):
        cookie = TimestampSigner(here.kept.key.hex()).sign(b64encode(json.dumps(forged).encode()))
        browser = here.browser(cookies={"ingest_session": cookie.decode()})
        assert browser.get("/events").status == 303
    own = TimestampSigner(here.kept.key.hex()).sign(b64encode(json.dumps(session).encode()))
    assert here.browser(cookies={"ingest_session": own.decode()}).get("/events").status == 200


def test_a_changed_password_ends_the_sessions_of_its_user() -> None:
    here = guarded()
    alice, victor = here.logged_in().cookies, here.logged_in("victor", OTHER_PASSWORD).cookies
    after = guarded(kept=here.kept, console_users=users("a changed password"))
    assert after.browser(cookies=alice).get("/events").status == 303
    assert after.browser(cookies=victor).get("/events").status == 200


def test_logging_out_ends_the_session_for_every_console_at_once() -> None:
    here = guarded()
    browser = here.logged_in()
    other, elsewhere = here.logged_in(), guarded(kept=here.kept)
    stolen = dict(browser.cookies)
    assert elsewhere.browser(cookies=stolen).get("/events").status == 200
    assert browser.post("/logout", {}).status == 303
    for each in (here, elsewhere):
        assert each.browser(cookies=stolen).get("/events").status == 303
        assert each.browser(cookies=stolen).post("/replay", {}).status == 303
        assert each.browser(cookies=stolen).get("/api/v1/events").status == 401
    assert other.get("/events").status == 200
    (expires_at,) = here.kept.ended.values()
    assert expires_at.timestamp() == START + LIFETIME_S


def test_a_database_that_is_away_lets_nobody_in_and_says_so() -> None:
    here = guarded()
    browser = here.logged_in()
    here.kept.is_away = True
    for target in ("/events", "/api/v1/events"):
        answer = browser.get(target)
        assert answer.status == 503
        assert "secret" not in answer.text
    assert browser.get("/api/v1/events").json()["error"] == "database_unreachable"
    assert browser.get("/static/app.css").status == 200
    assert browser.get("/health/live").status == 200
    assert ask(here.app, "GET", "/events", [OWN_HOST, bearer(TOKEN)]).status == 200
    here.kept.is_away = False
    assert browser.get("/events").status == 200


def test_a_console_that_starts_before_its_database_waits_for_the_key() -> None:
    here = guarded(kept=KeptSessions(is_away=True))
    assert here.browser().get("/login").status == 503
    here.kept.is_away = False
    assert here.logged_in().get("/events").status == 200


def test_whoever_has_no_session_costs_the_database_nothing() -> None:
    here = guarded()
    here.browser().get("/login")
    before = here.kept.asked
    for headers in ({}, {"cookie": "ingest_session=forged"}, {"authorization": f"Bearer {TOKEN}"}):
        here.browser().get("/events", **headers)
    assert here.kept.asked == before


def test_a_changed_role_counts_at_once_for_a_session_that_goes_on() -> None:
    here = guarded()
    cookies = here.logged_in().cookies
    after = guarded(kept=here.kept, console_users=users(role="viewer"))
    assert after.browser(cookies=cookies).get("/events").json()["identity"][1] == "viewer"


def test_somebody_who_is_gone_is_out() -> None:
    here = guarded()
    cookies = here.logged_in().cookies
    left = "\n".join(users().splitlines()[1:])
    assert (
        guarded(kept=here.kept, console_users=left).browser(cookies=cookies).get("/events").status
        == 303
    )


def test_a_forged_cookie_is_none() -> None:
    here = guarded()
    real = here.logged_in().cookies["ingest_session"]
    payload, _, signature = real.rpartition(".")
    own = TimestampSigner("a key of mine").sign(payload.rpartition(".")[0]).decode()
    forged = [
        "",
        ".",
        "alice",
        payload,
        f"{payload}.",
        f".{signature}",
        f"{payload}.{signature[:-1]}",
        f"{payload[:-2]}AA.{signature}",
        own,
        real + "x",
        "\xff" * 20,
    ]
    for cookie in forged:
        assert here.browser(cookies={"ingest_session": cookie}).get("/events").status == 303


def test_a_session_cookie_that_is_there_twice_is_refused() -> None:
    here = guarded()
    real = here.logged_in().cookies["ingest_session"]
    for header in (
        f"ingest_session={real}; ingest_session={real}",
        f"ingest_session=planted; a=b; ingest_session={real}",
    ):
        headers = [OWN_HOST, ("cookie", header)]
        assert ask(here.app, "GET", "/events", headers).status == 400
    twice = [OWN_HOST, ("cookie", f"a=1; ingest_session={real}; a=2")]
    assert ask(here.app, "GET", "/events", twice).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "cookie",
        "authorization",
        "origin",
        "sec-fetch-site",
        "content-type",
    ],
)
def test_a_header_that_decides_something_is_not_there_twice(name: str) -> None:
    value = OWN_HOST[1] if name == "host" else "x"
    headers = [("host", OWN_HOST[1]), (name, value), (name, value)]
    for here in (opened(), guarded()):
        assert ask(here.app, "GET", "/", headers).status == 400
        assert ask(here.app, "GET", "/api/v1/events", headers).json()["error"] == "header_repeated"


# Bearer tokens.


def test_a_token_needs_no_cookie_and_no_page() -> None:
    here = guarded()
    answer = ask(here.app, "POST", "/api/v1/replay", [OWN_HOST, bearer(TOKEN), JSON], b"{}")
    assert answer.status == 200
    assert here.changes[0]["by"] == "deploy"
    shown = ask(here.app, "GET", "/events", [OWN_HOST, ("authorization", f"bearer {TOKEN}")])
    assert shown.json() == {"identity": ["deploy", "operator", "token"]}


def test_a_wrong_token_is_not_made_up_for_by_a_cookie() -> None:
    here = guarded()
    browser = here.logged_in()
    for wrong in ("x", "", TOKEN[:-1], f"{TOKEN}x", "\xff"):
        header = f"Bearer {wrong}"
        assert browser.get("/events", authorization=header).status == 401
        assert browser.get("/api/v1/events", authorization=header).status == 401
        assert browser.post("/replay", {}, authorization=header).status == 401
    assert not here.changes
    assert browser.post("/replay", {}).status == 200


def test_the_token_decides_and_not_the_session_beside_it() -> None:
    here = guarded()
    browser = here.logged_in()
    answer = browser.post("/replay", {}, authorization=f"Bearer {VIEWER_TOKEN}")
    assert answer.status == 403
    assert not here.changes


def test_a_session_cookie_is_no_token_and_a_token_no_session() -> None:
    here = guarded()
    cookie = here.logged_in().cookies["ingest_session"]
    assert ask(here.app, "GET", "/api/v1/events", [OWN_HOST, bearer(cookie)]).status == 401
    assert here.browser(cookies={"ingest_session": TOKEN}).get("/events").status == 303


def test_the_credentials_of_a_proxy_leave_the_session_alone() -> None:
    browser = guarded().logged_in()
    answer = browser.get("/events", authorization="Basic YTpi")
    assert answer.json()["identity"] == ["alice", "operator", "password"]
    assert browser.post("/replay", {}, authorization="Basic YTpi").status == 200


# Roles.


@pytest.mark.parametrize("target", ["/replay", "/api/v1/replay"])
def test_a_viewer_changes_nothing(target: str) -> None:
    here = guarded()
    browser = here.logged_in("victor", OTHER_PASSWORD)
    assert browser.post(target, {}).status == 403
    assert ask(here.app, "POST", target, [OWN_HOST, bearer(VIEWER_TOKEN)]).status == 403
    assert not here.changes


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "get", "ANYTHING"])
def test_whatever_is_not_known_to_be_safe_is_a_change(method: str) -> None:
    here = guarded()
    for target in ("/events", "/static/app.css", "/health/live"):
        assert ask(here.app, method, target, [OWN_HOST, bearer(VIEWER_TOKEN)]).status == 403


def test_a_viewer_looks() -> None:
    browser = guarded().logged_in("victor", OTHER_PASSWORD)
    assert browser.get("/events").status == 200
    assert ask(browser.app, "HEAD", "/events", [OWN_HOST, bearer(VIEWER_TOKEN)]).status == 200


def test_a_refusal_is_json_for_the_api_and_a_sentence_for_a_person() -> None:
    here = guarded()
    told = ask(here.app, "POST", "/api/v1/replay", [OWN_HOST, bearer(VIEWER_TOKEN)])
    assert told.json() == {"error": "role_insufficient", "message": "Viewers are read-only."}
    said = ask(here.app, "POST", "/replay", [OWN_HOST, bearer(VIEWER_TOKEN)])
    assert said.one("content-type") == "text/plain; charset=utf-8"
    assert said.text == "Viewers are read-only.\n"


# Forgery.

SITES = [
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:8001"},
    {"sec_fetch_site": ""},
    {"sec_fetch_site": "Same-Origin"},
]
ORIGINS = [
    "http://evil.example",
    "http://127.0.0.1:3000",
    "http://127.0.0.1",
    "http://127.0.0.1:8001.evil.example",
    "http://evil.example@127.0.0.1:8001",
    "http://localhost:8001",
    "null",
    "",
    "127.0.0.1:8001",
    "file://127.0.0.1:8001",
]


def someone(make: Any, **more: Any) -> tuple[Console, Browser]:
    """A console, and a browser of somebody who may change something there."""
    here = make()
    return here, here.logged_in(**more) if make is guarded else here.browser(**more)


def sent_by(browser: Browser, *headers: tuple[str, str]) -> Answer:
    """The answer to a change that comes with the browser's cookies and these headers alone."""
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    own = [OWN_HOST, *([("cookie", cookie)] if cookie else [])]
    return ask(browser.app, "POST", "/replay", [*own, *headers], b"")


@pytest.mark.parametrize("make", [opened, guarded])
def test_a_form_of_ours_changes_something_and_arrives_whole(make: Any) -> None:
    here, browser = someone(make)
    form = {"before": "1", "id": "7", "after": "\u00e9"}
    assert browser.post("/replay", form).status == 200
    assert here.changes[0]["form"] == form
    assert here.changes[0]["body"] == urlencode(form).encode()


@pytest.mark.parametrize("make", [opened, guarded])
@pytest.mark.parametrize("site", SITES)
def test_another_site_changes_nothing(make: Any, site: dict[str, str]) -> None:
    here, browser = someone(make)
    assert browser.post("/replay", {}, **site).status == 403
    assert browser.post("/api/v1/replay", {}, **site).json()["error"] == "cross_site"
    assert browser.post("/login", {"name": "alice", "password": PASSWORD}, **site).status == 403
    assert browser.post("/logout", {}, **site).status == 403
    assert not here.changes


@pytest.mark.parametrize("make", [opened, guarded])
@pytest.mark.parametrize("origin", ORIGINS)
def test_an_old_browser_names_the_origin_alone(make: Any, origin: str) -> None:
    here, browser = someone(make)
    assert sent_by(browser, ("origin", origin)).status == 403
    assert not here.changes
    assert sent_by(browser, ("origin", "http://127.0.0.1:8001")).status == 200
    assert sent_by(browser, ("origin", "HTTP://127.0.0.1:8001")).status == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_behind_a_proxy_that_names_another_host_the_browser_is_believed(site: str) -> None:
    browser = guarded().logged_in()
    headers = ("sec-fetch-site", site), ("origin", "https://console.example")
    assert sent_by(browser, *headers).status == 200


def test_behind_tls_the_page_came_over_tls() -> None:
    browser = guarded(console_tls_proxy=True).logged_in(scheme="https")
    assert sent_by(browser, ("origin", "http://127.0.0.1:8001")).status == 403
    assert sent_by(browser, ("origin", "https://127.0.0.1:8001")).status == 200


@pytest.mark.parametrize("make", [opened, guarded])
def test_a_program_says_neither_and_changes_something(make: Any) -> None:
    here, browser = someone(make)
    assert sent_by(browser).status == 200
    assert sent_by(browser, ("content-type", "text/plain")).status == 200
    assert len(here.changes) == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_without_body_and_content_type_is_not_forged(method: str) -> None:
    here = opened()
    assert ask(here.app, method, "/replay", [OWN_HOST]).status == 200
    assert ask(here.app, "POST", "/api/v1/replay", [OWN_HOST]).status == 200


def test_a_bearer_token_is_not_the_browsers_own_doing() -> None:
    here = guarded()
    crossing = ("sec-fetch-site", "cross-site"), ("origin", "https://app.example")
    headers = [OWN_HOST, bearer(TOKEN), *crossing]
    assert ask(here.app, "POST", "/api/v1/replay", headers).status == 200
    cookie = ("cookie", "ingest_session=x")
    assert ask(here.app, "POST", "/api/v1/replay", [*headers, cookie]).status == 403
    basic = ("authorization", "Basic YTpi")
    assert ask(opened().app, "POST", "/replay", [OWN_HOST, basic, *crossing]).status == 403


def test_reading_is_for_every_site() -> None:
    browser = guarded().logged_in()
    assert browser.get("/events", sec_fetch_site="cross-site").status == 200


def test_no_page_and_no_cookie_has_a_token() -> None:
    for path in sorted(TEMPLATES.glob("*.html")):
        assert "csrf" not in path.read_text()
    assert not opened().browser().get("/").all("set-cookie")
    assert not guarded().browser().get("/login").all("set-cookie")


def test_a_form_that_is_too_large_is_not_read() -> None:
    endless = [b"x" * 65_536] * 64
    assert ask(guarded().app, "POST", "/login", [OWN_HOST, FORM], endless).status == 413


def test_a_form_with_endlessly_many_fields_is_refused() -> None:
    body = b"a=b&" * 20_000
    assert ask(guarded().app, "POST", "/login", [OWN_HOST, FORM], body).status == 400


def test_a_form_that_never_arrives_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.console.ui.forms._DEADLINE_S", 0.01)
    headers = [(b"host", b"127.0.0.1:8001"), (b"content-type", FORM[1].encode())]
    scope = {"type": "http", "method": "POST", "path": "/login", "headers": headers}
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    run(guarded().app, scope, receive, send)
    assert sent[0]["status"] == 408


def test_a_browser_that_hangs_up_is_no_error_of_ours() -> None:
    assert ask(guarded().app, "POST", "/login", [OWN_HOST, FORM], []).status == 400


# Every response.


@pytest.mark.parametrize(
    ("target", "status"),
    [("/login", 200), ("/events", 303), ("/api/v1/events", 401), ("/health/live", 200)],
)
def test_every_response_tells_the_browser_what_pages_may_do(target: str, status: int) -> None:
    answer = guarded().browser().get(target)
    assert answer.status == status
    for name, value in HEADERS.items():
        assert answer.one(name.lower()) == value
    assert answer.one("cache-control") == "no-store"


def test_nothing_runs_that_is_not_ours() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    for rule in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert rule in policy
    page = (TEMPLATES / "login.html").read_text()
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page)


def test_our_own_forms_keep_their_origin() -> None:
    assert HEADERS["Referrer-Policy"] == "same-origin"


def test_static_files_may_be_kept_and_set_no_cookie() -> None:
    for here in (opened(), guarded()):
        answer = here.browser().get("/static/app.css")
        assert answer.one("cache-control") is None
        assert not answer.all("set-cookie")
        assert answer.one("x-content-type-options") == "nosniff"


def test_a_stream_passes_piece_by_piece() -> None:
    answer = opened().browser().get("/stream")
    assert answer.pieces == [b"data: 1\n\n", b"data: 2\n\n"]


def test_nobody_is_left_in_a_state_that_the_server_uses_again() -> None:
    here = guarded()
    state: dict[str, Any] = {"kept": 1}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/events",
        "query_string": b"",
        "headers": [(b"host", b"a"), (b"authorization", f"Bearer {TOKEN}".encode())],
        "state": state,
    }

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_message: Message) -> None: ...

    run(here.app, scope, receive, send)
    assert state == {"kept": 1}


def test_a_clock_that_is_set_back_ends_no_session() -> None:
    clock = Clock()
    browser = guarded(clock=clock).logged_in()
    clock.now -= 3_600
    assert browser.get("/events").status == 200
