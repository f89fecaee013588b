"""axe-core finds nothing wrong with any page: light, dark, and on a telephone."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from ingest.console.auth.passwords import hash_password
from tests.acceptance.harness import Stack, request
from tests.conftest import Servers, cloned
from tests.support.rows import execute
from tests.support.waiting import until

PASSWORD = "the desert is wide"
TEXT = "أين طلبي؟ Where is it?"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A console where everything has happened, and one where nothing has."""

    origin: str
    empty_origin: str
    dead: str
    conflict: str
    unhandled: str
    waiting: str
    rejected: str
    """Ids: of events, and of a delivery."""


@pytest.fixture(scope="module")
def empty(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A console with a login, and nothing else."""
    with cloned(servers, template) as url:
        folder = tmp_path_factory.mktemp("empty")
        users = f"omar:operator:{hash_password(PASSWORD)}"
        stack = Stack(url, servers.redis_url, folder, console_users=users)
        stack.console()
        yield stack
        stack.close()


@pytest.fixture(scope="module")
def shown(stack: Stack, empty: Stack) -> Shown:
    """All that a page can show."""
    (stack.folder / "broken").touch()
    until(
        lambda: len(stack.ask("/api/v1/processors").json["items"]) > 2,
        what="the worker has registered",
    )
    stack.tell("/processors/waits/pause", {"reason": "a deploy"})
    said = {"message_id": "wamid.1", "conversation_id": 7, "from": "966512345678", "body": TEXT}
    bodies = [
        *(order(number, note="fails") for number in range(3)),
        order(10, note="discards"),
        order(11),
        order(11),
        order(11, status="paid"),
        body("conversation.created", {"conversation_id": 7}),
        *(
            body("conversation.updated", {"conversation_id": number, "contact_id": number})
            for number in (7001, 7002)
        ),
        body("message.received", said),
        body("invoice.created", {"id": 1}),
        b"[]",
    ]
    assert [stack.post(each).status for each in bodies] == [200] * 12 + [400]
    forged = {"x-awal-webhook-signature": "0", "x-awal-webhook-timestamp": "1"}
    assert request(stack.ports[0], "POST", "/webhooks/awalchat", order(9), forged).status == 401
    until(lambda: stack.unfinished() == 1, what="all but the paused is worked on")
    stack.tell("/bulk-actions", {"q": "type:order.*", "reason": TEXT})
    until(lambda: stack.ask("/api/v1/bulk-actions/1").json["status"] == "finished")
    stack.tell("/bulk-actions", {"q": "type:order.created state:dead"})
    until(lambda: stack.unfinished() == 1, what="the replays are worked on")
    for number, contact in ((1, "7001"), (2, "7002")):
        order_erasure(stack, number, contact)
    stack.tell("/erasures/2/erase")
    until(lambda: stack.ask("/api/v1/erasures/2").json["status"] == "finished")
    until(lambda: stack.ask("/failures/1").status == 200, what="the failure is recorded")
    stack.tell("/failures/1/note", {"text": TEXT})
    half_way = "UPDATE replays SET status = 'paused', finished_at = NULL, total = 9 WHERE id = 2"
    execute(stack.engine, half_way)

    def event(event_id: str) -> str:
        sql = "SELECT id::text FROM events WHERE event_id = :event_id"
        found: str = stack.value(sql, event_id=event_id)
        return found

    return Shown(
        origin=f"http://127.0.0.1:{stack.console_port}",
        empty_origin=f"http://127.0.0.1:{empty.console_port}",
        dead=event("order.created:0"),
        conflict=event("order.created:11"),
        unhandled=stack.value("SELECT id::text FROM events WHERE type = 'invoice.created'"),
        waiting=event("conversation.created:7"),
        rejected=stack.value("SELECT id::text FROM deliveries WHERE rejected IS NOT NULL"),
    )


def order_erasure(stack: Stack, number: int, contact: str) -> None:
    """Let a person be found."""
    ordered = stack.tell("/erasures", {"contacts": [contact], "reason": TEXT})
    assert ordered.json["id"] == number
    until(lambda: stack.ask(f"/api/v1/erasures/{number}").json["status"] == "found")


def order(number: int, **more: object) -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": ""} | more
    return body("order.created", data)


def body(event_type: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"event": event_type, "data": data}, ensure_ascii=False).encode()


# How each page is reached.


def at(path: str) -> Callable[[Page, Shown], object]:
    """A page, its path with the names of ids in it."""
    return lambda page, shown: page.goto(f"{shown.origin}{path.format_map(asdict(shown))}")


def unfolded(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events/{shown.dead}")
    page.get_by_text("Traceback").first.click()
    page.get_by_text("curl", exact=True).click()


def asked(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events/{shown.dead}")
    page.get_by_role("button", name="Retry now").first.click()
    page.get_by_role("dialog").wait_for()


def edited(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events/{shown.dead}")
    page.get_by_role("link", name="Edit and send again").click()
    body = page.get_by_label("Body")
    body.fill(body.input_value().replace("fails", "works"))
    page.get_by_role("button", name="Check").click()
    page.get_by_role("heading", name="What it would become").wait_for()


def keys(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()


def told(page: Page, shown: Shown) -> None:
    """What was done is told, and the console has stopped answering."""
    page.goto(f"{shown.origin}/events?q=state:dead")
    page.get_by_text("Saved views").click()
    page.get_by_label("Name of this search").fill(TEXT)
    page.get_by_role("button", name="Save this search").click()
    page.get_by_role("region", name="What was done").wait_for()
    page.route("**/events**", lambda route: route.abort())
    page.keyboard.press("h")
    page.keyboard.press("h")
    page.get_by_text("the console does not answer").wait_for()


def selected(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events")
    page.get_by_role("checkbox").nth(1).check()


def previewed(action: str) -> Callable[[Page, Shown], object]:
    def reach(page: Page, shown: Shown) -> None:
        page.goto(f"{shown.origin}/events?q=type:order.*")
        page.get_by_role("button", name=re.compile(f"^{action} all")).click()
        page.get_by_role("heading", name=re.compile(f"This will {action.lower()}")).wait_for()

    return reach


def login(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.empty_origin}/login")
    page.get_by_label("Name").fill("omar")
    page.get_by_label("Password").fill("a wrong password")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()


def without_events(path: str) -> Callable[[Page, Shown], object]:
    def reach(page: Page, shown: Shown) -> None:
        page.goto(f"{shown.empty_origin}/login?next={path}")
        page.get_by_label("Name").fill("omar")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{shown.empty_origin}{path}")

    return reach


PAGES: dict[str, Callable[[Page, Shown], object]] = {
    "overview": at("/"),
    "overview of a week": at("/?range=week"),
    "overview by processor": at("/?by=processor"),
    "events": at("/events"),
    "events, some selected": selected,
    "events, a view saved, and the console away": told,
    "events, a search with problems": at("/events?q=state:lost+colour:red"),
    "events, none": at("/events?q=type:nothing"),
    "a dead event": at("/events/{dead}"),
    "a dead event, all unfolded": unfolded,
    "a dead event, about to retry": asked,
    "an event with a conflict": at("/events/{conflict}"),
    "an event without processors": at("/events/{unhandled}"),
    "an event that waits": at("/events/{waiting}"),
    "an order": at("/entities/order/11"),
    "an order, oldest first": at("/entities/order/11?order=oldest"),
    "an event, edited": edited,
    "a rejected delivery": at("/deliveries/{rejected}"),
    "failures": at("/failures"),
    "failures, all": at("/failures?state=all&sort=attempts"),
    "a failure": at("/failures/1"),
    "refused requests": at("/refusals"),
    "rejected deliveries": at("/refusals?kind=rejected"),
    "live": at("/live"),
    "processors": at("/processors"),
    "a processor with dead letters": at("/processors/whims"),
    "a paused processor": at("/processors/waits"),
    "a processor that there is not": at("/processors/nobody"),
    "sources": at("/sources"),
    "alerts": at("/alerts"),
    "audit log": at("/audit-log"),
    "retention": at("/retention"),
    "the API": at("/docs"),
    "an operation of the API": at("/docs/begin_bulk_action"),
    "erasures": at("/erasures"),
    "an erasure, to be confirmed": at("/erasures/1"),
    "an erasure, finished": at("/erasures/2"),
    "a bulk action, finished": at("/bulk-actions/1"),
    "a bulk action, paused": at("/bulk-actions/2"),
    "a preview of a replay": previewed("Replay"),
    "a preview of a discard": previewed("Discard"),
    "keys": keys,
    "nothing at this address": at("/nowhere"),
    "login": login,
    "overview, empty": without_events("/"),
    "failures, none": without_events("/failures"),
    "refused requests, none": without_events("/refusals"),
    "processors, none": without_events("/processors"),
    "audit log, empty": without_events("/audit-log"),
}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_hard_to_use(browser: Browser, shown: Shown, name: str) -> None:
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="light", reduced_motion="reduce"
    )
    page = context.new_page()
    PAGES[name](page, shown)
    found = violations(page, "light")
    page.emulate_media(color_scheme="dark")
    found += violations(page, "dark", runOnly=["color-contrast"])  # nothing else depends on it
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 360, "height": 780})
    found += violations(page, "narrow")
    context.close()
    assert not found, "\n".join(found)


def violations(page: Page, look: str, **options: object) -> list[str]:
    """What axe-core finds, whatever its impact, an element a line."""
    answer = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    assert answer["passes"], "axe-core looked at nothing"
    return [
        f"{look}: {each['id']} ({each['impact']}): {node['html'][:200]} {node['failureSummary']}"
        for each in answer["violations"]
        for node in each["nodes"]
    ]
