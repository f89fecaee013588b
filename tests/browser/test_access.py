"""Who gets into the console and what they may do there, in a real browser."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from ingest.console.auth import credentials
from ingest.console.auth.passwords import hash_password
from tests.acceptance import shop_processors
from tests.acceptance.harness import Answer, Stack, request
from tests.conftest import Servers, cloned
from tests.support.ports import free_port
from tests.support.redis_client import connect
from tests.support.rows import execute
from tests.support.waiting import until

PASSWORDS = {"omar": "the desert is wide", "vera": "only looking, thanks"}
TOKEN, VIEWER_TOKEN = "token_of_the_deploy_script", "token_of_the_dashboard"
WRONG = "The name or the password is wrong."
PHONE = "966512345678"
TEXT = "أين طلبي؟"
ERROR = "the CRM is away"
LISTS = (
    *("/", "/events", "/failures", "/failures/1", "/refusals", "/alerts", "/live", "/processors"),
    *("/sources", "/retention", "/audit-log", "/entities/order/790", "/docs", "/docs/replay_event"),
    "/processors/whims",
)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A stack whose consoles ask who somebody is, and what happened there."""

    stack: Stack
    port: int
    """Its console hides bodies from viewers."""
    tls_port: int
    """Its console is told that a proxy ends TLS, and hides nothing."""
    failed: str
    """An event that is dead, and was sent twice with different bodies."""
    message: str
    """An event whose body has a phone number."""
    rejected: str
    """A delivery that is no event."""
    replayed: int
    """A replay of all that concerns the phone number."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **headers: str) -> Answer:
        return request(self.port, "GET", path, headers=headers)

    def changes(self) -> tuple[Any, ...]:
        """What anybody has changed so far."""
        found = self.stack.query(
            "SELECT (SELECT count(*) FROM actions) AS actions,"
            " (SELECT count(*) FROM erasures) AS erasures,"
            " (SELECT count(*) FROM replays) AS replays,"
            " (SELECT count(*) FROM processors WHERE paused_at IS NOT NULL) AS paused,"
            " (SELECT sum(attempt) FROM jobs) AS attempts"
        )
        return tuple(found[0].values())


@pytest.fixture(scope="module")
def guarded(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """Two consoles with an operator, a viewer and a token of each."""
    with connect(servers.redis_url) as client:
        client.flushall()
    with cloned(servers, template) as url:
        stack = Stack(
            url,
            servers.redis_url,
            tmp_path_factory.mktemp("access"),
            processors="shop_processors",
            console_users=(
                f"omar:operator:{hash_password(PASSWORDS['omar'])}\n"
                f"vera:viewer:{hash_password(PASSWORDS['vera'])}"
            ),
            console_tokens=(
                f"deploy:operator:{credentials.digest(TOKEN)};"
                f"dashboard:viewer:{credentials.digest(VIEWER_TOKEN)}"
            ),
        )
        try:
            yield start(stack)
        finally:
            stack.close()


def start(stack: Stack) -> Guarded:
    shutil.copy(shop_processors.__file__, stack.folder)
    (stack.folder / "broken").touch()
    execute(stack.engine, "CREATE TABLE effects (what text, event text, attempt integer)")
    stack.receiver()
    stack.worker()
    stack.relay()
    stack.console(console_tls_proxy="true")
    tls_port = stack.console_port
    stack.console(console_mask_viewers="true")
    said = {"message_id": "wamid.1", "conversation_id": 7, "from": PHONE, "body": TEXT}
    ordered = {"order_id": 1, "conversation_id": 7, "note": "fails", "phone": PHONE}
    bodies = [
        body("message.received", said),
        body("order.created", ordered),
        body("order.created", ordered | {"customer": TEXT}),
        json.dumps([PHONE, TEXT], ensure_ascii=False).encode(),
    ]
    assert [stack.post(each).status for each in bodies] == [200, 200, 200, 400]
    stack.wait_until_idle()
    until(lambda: stack.value("SELECT count(*) FROM duplicates") == 1)
    # What was searched for is kept with what was done.
    replayed = stack.tell(
        "/bulk-actions", {"q": f"phone:{PHONE}"}, authorization=f"Bearer {TOKEN}"
    ).json["bulk_action"]["id"]
    ended = "SELECT finished_at IS NOT NULL FROM replays WHERE id = :id"
    until(lambda: stack.value(ended, id=replayed))
    stack.wait_until_idle()
    until(lambda: stack.value("SELECT count(*) FROM failure_groups") > 0, what="it is recorded")
    event = "SELECT id::text FROM events WHERE type = "
    return Guarded(
        stack=stack,
        port=stack.console_port,
        tls_port=tls_port,
        failed=stack.value(f"{event} 'order.created'"),
        message=stack.value(f"{event} 'message.received'"),
        rejected=stack.value("SELECT id::text FROM deliveries WHERE rejected IS NOT NULL"),
        replayed=replayed,
    )


def body(event_type: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"event": event_type, "data": data}, ensure_ascii=False).encode()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, guarded: Guarded) -> Iterator[Visit]:
    """Opens browsers, in which the one who is named has logged in. What scripts throw fails."""
    contexts, thrown = [], []

    def open_one(name: str | None = None) -> Page:
        contexts.append(browser.new_context(base_url=guarded.origin))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: thrown.append(str(error)))
        if name is not None:
            page.goto("/login")
            log_in(page, name)
            page.wait_for_url(f"{guarded.origin}/")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not thrown


def log_in(page: Page, name: str, password: str | None = None) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORDS[name] if password is None else password)
    page.get_by_role("button", name="Log in").click()


def submit(page: Page, path: str, **form: str) -> tuple[int, str]:
    """What the console answers to a form that the page's own script sends."""
    status, text = page.evaluate(
        "async ([path, form]) => {"
        " const answer = await fetch(path, {method: 'POST', body: new URLSearchParams(form)});"
        " return [answer.status, await answer.text()]; }",
        [path, form],
    )
    return int(status), str(text)


def test_without_a_login_every_page_leads_to_it_and_back(guarded: Guarded, visit: Visit) -> None:
    page = visit()
    pages = (*LISTS, f"/events/{guarded.failed}", f"/deliveries/{guarded.rejected}", "/nowhere")
    for path in pages:
        page.goto(path)
        assert page.url == f"{guarded.origin}/login" + (f"?next={path}" if path != "/" else "")
        expect(page.get_by_role("navigation")).to_have_count(0)
    wanted = "/events?q=state:dead+type:order.*"
    page.goto(wanted)
    log_in(page, "omar")
    page.wait_for_url(f"{guarded.origin}{wanted}")
    expect(page.locator("tbody tr")).to_have_count(1)


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example"]
)
def test_a_login_leads_nowhere_else(guarded: Guarded, visit: Visit, elsewhere: str) -> None:
    page = visit()
    page.goto(f"/login?next={quote(elsewhere, safe='')}")
    log_in(page, "omar")
    page.wait_for_url(f"{guarded.origin}/")


def test_a_wrong_password_and_a_wrong_name_are_told_apart_by_nobody(
    guarded: Guarded, visit: Visit
) -> None:
    page = visit()
    page.goto("/failures")
    for name, password in (("omar", "the desert is small"), ("nobody", PASSWORDS["omar"])):
        log_in(page, name, password)
        expect(page.get_by_role("alert")).to_have_text(WRONG)
        assert PASSWORDS["omar"] not in page.content()
    assert not page.context.cookies()
    log_in(page, "omar")
    page.wait_for_url(f"{guarded.origin}/failures")


def test_who_logs_out_is_out(guarded: Guarded, visit: Visit) -> None:
    page = visit("omar")
    expect(page.locator("header .who")).to_have_text("omar")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{guarded.origin}/login")
    page.goto("/events")
    assert page.url.endswith("/login?next=/events")
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(0)


def test_who_logs_out_is_out_in_every_console_whoever_kept_the_cookie(
    guarded: Guarded, visit: Visit
) -> None:
    page = visit("omar")
    (cookie,) = page.context.cookies()
    kept = {"cookie": f"{cookie['name']}={cookie['value']}"}
    behind_tls = {"cookie": f"__Host-{cookie['name']}={cookie['value']}"}
    events = "/api/v1/events"
    assert guarded.ask(events, **kept).status == 200
    assert request(guarded.tls_port, "GET", events, headers=behind_tls).status == 200
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{guarded.origin}/login")
    assert guarded.ask(events, **kept).status == 401
    assert request(guarded.tls_port, "GET", events, headers=behind_tls).status == 401


def test_a_page_that_outlives_its_session_says_so_and_leads_to_the_login_and_back(
    guarded: Guarded, visit: Visit
) -> None:
    page = visit("omar")
    page.goto("/?range=day")
    page.context.clear_cookies()
    page.keyboard.press("h")
    page.keyboard.press("h")  # who goes on is refreshed at once
    expect(page.locator("[data-refresh-state]")).to_contain_text("your session has ended.")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.locator("footer").get_by_role("link", name="Log in").click()
    page.wait_for_url(f"{guarded.origin}/login?next=%2F%3Frange%3Dday")
    log_in(page, "omar")
    page.wait_for_url(f"{guarded.origin}/?range=day")


def test_a_viewer_finds_nothing_to_press(guarded: Guarded, visit: Visit) -> None:
    changes = re.compile("^(Replay|Discard|Retry|Pause|Resume|Send)")
    found = {}
    for name in PASSWORDS:
        page, found[name] = visit(name), 0
        for path in (*LISTS, f"/events/{guarded.failed}"):
            page.goto(path)
            buttons = page.locator("main button:visible:not([data-tail-pause])")
            found[name] += buttons.filter(has_text=changes).count()
            found[name] += page.get_by_role("checkbox").count()
    assert found["vera"] == 0
    assert found["omar"] > 8


def test_a_viewer_changes_nothing_by_any_key_or_form(guarded: Guarded, visit: Visit) -> None:
    page = visit("vera")
    page.goto(f"/events/{guarded.failed}")
    before = guarded.changes()
    page.keyboard.press("r")
    expect(page.get_by_role("dialog")).to_have_count(0)
    job = guarded.stack.value("SELECT min(id) FROM jobs")
    for path, form in (
        (f"/events/{guarded.failed}/replay", {}),
        (f"/events/{guarded.failed}/discard", {}),
        (f"/events/{guarded.failed}/edit", {}),
        (f"/events/{guarded.failed}/resend", {"body": "{}"}),
        (f"/jobs/{job}/retry", {}),
        ("/events/preview", {"action": "replay-all", "q": "state:dead"}),
        ("/bulk-actions", {"action": "replay", "q": "state:dead"}),
        ("/bulk-actions/1/cancel", {}),
        ("/processors/whims/pause", {}),
        ("/test-event", {}),
        ("/erasures", {"phones": PHONE}),
    ):
        answer = submit(page, path, **form)
        assert answer == (403, "Viewers are read-only.\n"), path
    for path in (
        "/bulk-actions",
        "/erasures",
        "/processors/whims/pause",
        f"/events/{guarded.failed}/replay",
        f"/events/{guarded.failed}/resend",
    ):
        status, text = submit(page, f"/api/v1{path}")
        assert (status, json.loads(text)["error"]) == (403, "role_insufficient")
    assert guarded.changes() == before


def test_a_viewer_looks_neither_at_erasures_nor_at_the_form_of_a_body(
    guarded: Guarded, visit: Visit
) -> None:
    for name, status in (("vera", 403), ("omar", 200)):
        page = visit(name)
        expect(page.get_by_role("link", name="Erasures")).to_have_count(int(name == "omar"))
        for path in ("/erasures", f"/events/{guarded.failed}/edit"):
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == status


@pytest.mark.parametrize("site", ["another site", "another origin"])
def test_a_form_on_another_site_changes_nothing(guarded: Guarded, visit: Visit, site: str) -> None:
    page = visit("omar")
    origin = {"another site": "http://evil.test", "another origin": "http://127.0.0.1"}[site]
    lure = f"{origin}:{free_port()}/"
    form = (
        f'<form method="post" action="{guarded.origin}/processors/whims/pause">'
        "<button>Win</button></form>"
    )
    page.route(lure, lambda route: route.fulfill(content_type="text/html", body=form))
    before = guarded.changes()
    page.goto(lure)
    with page.expect_response(lambda answer: "/pause" in answer.url) as answered:
        page.get_by_role("button", name="Win").click()
    assert answered.value.status == 403
    expect(page.get_by_text("This request comes from another site.")).to_be_visible()
    assert guarded.changes() == before


def test_a_viewer_sees_no_body_no_phone_number_and_no_error_message(
    guarded: Guarded, visit: Visit
) -> None:
    pages = (
        *LISTS,
        f"/events/{guarded.failed}",
        f"/events/{guarded.message}",
        f"/deliveries/{guarded.rejected}",
        f"/bulk-actions/{guarded.replayed}",
        "/events?q=state:dead",
    )
    found = {name: "".join(sources(visit(name), pages)) for name in PASSWORDS}
    for secret in (PHONE, TEXT, ERROR, "raise ConnectionError"):
        assert secret not in found["vera"], secret
        assert secret in found["omar"], secret
    assert "ConnectionError" in found["vera"]  # what kind of error it is says nothing of anybody


def sources(page: Page, paths: tuple[str, ...]) -> Iterator[str]:
    """The HTML of pages, as it was sent and as it is."""
    for path in paths:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        yield answer.text()
        yield page.content()


def test_a_viewer_is_told_no_more_by_the_api(guarded: Guarded) -> None:
    paths = (
        "/events",
        f"/events/{guarded.failed}",
        f"/events/{guarded.message}",
        "/failures",
        "/failures/1",
        "/rejected",
        "/refusals",
        "/refusals/summary",
        "/refusals/samples",
        "/deliveries",
        "/overview",
        "/audit-log",
        "/retention",
        "/bulk-actions",
        f"/bulk-actions/{guarded.replayed}",
    )
    found = {}
    for token in (TOKEN, VIEWER_TOKEN):
        answers = [guarded.ask(f"/api/v1{path}", authorization=f"Bearer {token}") for path in paths]
        assert {each.status for each in answers} == {200}
        found[token] = "".join(each.body.decode() for each in answers)
    for secret in (PHONE, TEXT, ERROR, "raise ConnectionError"):
        assert secret not in found[VIEWER_TOKEN], secret
        assert secret in found[TOKEN], secret


@pytest.mark.parametrize("search", [f"phone:{PHONE}", TEXT, f"data.from:{PHONE}"])
def test_a_viewer_finds_nothing_by_what_is_hidden(
    guarded: Guarded, visit: Visit, search: str
) -> None:
    page = visit("vera")
    page.goto(f"/events?q={quote(search)}")
    expect(page.locator("#problems")).to_contain_text("Viewers cannot search in bodies")
    path = f"/api/v1/events?q={quote(search)}"
    refused = guarded.ask(path, authorization=f"Bearer {VIEWER_TOKEN}")
    assert (refused.status, refused.json["error"]) == (400, "bad_query")
    answer = guarded.ask(path, authorization=f"Bearer {TOKEN}")
    assert guarded.message in {each["id"] for each in answer.json["items"]}


def test_what_is_hidden_does_not_arrive_live_either(guarded: Guarded, visit: Visit) -> None:
    page = visit("vera")
    page.goto("/live")
    expect(page.locator("[data-tail-state]")).to_have_text("connected")
    named = {"contact_id": 5, "name": TEXT, "phone": PHONE}
    new = body("contact.created", named)[:-1] + f', "id": "{PHONE}"}}'.encode()
    assert guarded.stack.post(new).status == 200
    row = page.locator("tbody tr").filter(has_text="contact.created")
    expect(row).to_contain_text("78")
    assert PHONE not in page.content()
    assert TEXT not in page.content()


def test_a_token_is_for_the_header_alone(guarded: Guarded) -> None:
    path = "/api/v1/events"
    assert guarded.ask(path, authorization=f"Bearer {TOKEN}").status == 200
    for headers in (
        {},
        {"authorization": f"Bearer {TOKEN}0"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"ingest_session={TOKEN}"},
        {"cookie": f"authorization=Bearer {TOKEN}"},
    ):
        answer = guarded.ask(path, **headers)
        assert (answer.status, answer.json["error"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.ask(f"{path}?token={TOKEN}").status == 401
    wrong = guarded.ask("/events", cookie=f"ingest_session={TOKEN}")
    assert (wrong.status, wrong.headers["location"]) == (303, "/login?next=/events")


def test_a_token_has_a_role_too(guarded: Guarded) -> None:
    def pause(token: str) -> Answer:
        return request(
            guarded.port,
            "POST",
            "/api/v1/processors/stalls/pause",
            b"{}",
            {"authorization": f"Bearer {token}", "content-type": "application/json"},
        )

    assert pause(VIEWER_TOKEN).status == 403
    assert pause(TOKEN).status == 200
    by = guarded.stack.value("SELECT paused_by FROM processors WHERE name = 'stalls'")
    assert by == "deploy"


def test_scripts_and_other_sites_do_not_get_at_the_cookies(guarded: Guarded, visit: Visit) -> None:
    page = visit("omar")
    cookies = {each["name"]: each for each in page.context.cookies()}
    assert set(cookies) == {"ingest_session"}
    for each in cookies.values():
        assert (each["httpOnly"], each["sameSite"], each["path"]) == (True, "Lax", "/")
        assert each["domain"] == "127.0.0.1"
    assert page.evaluate("document.cookie") == ""


def test_behind_tls_the_cookies_are_for_tls_alone(guarded: Guarded) -> None:
    fields = {"name": "omar", "password": PASSWORDS["omar"]}
    answer = request(
        guarded.tls_port,
        "POST",
        "/login",
        "&".join(f"{name}={quote(value)}" for name, value in fields.items()).encode(),
        {
            "content-type": "application/x-www-form-urlencoded",
            "origin": f"https://127.0.0.1:{guarded.tls_port}",
        },
    )
    session, _, flags = answer.headers["set-cookie"].partition("; ")
    assert session.startswith("__Host-ingest_session=")
    assert flags == "path=/; Max-Age=43200; httponly; samesite=lax; secure"
    page = request(guarded.tls_port, "GET", "/events", headers={"cookie": session})
    assert page.status == 200
    plain = session.removeprefix("__Host-")  # which a site without TLS could have planted
    page = request(guarded.tls_port, "GET", "/events", headers={"cookie": plain})
    assert page.status == 303
