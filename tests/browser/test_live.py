"""Pages that refresh themselves under somebody's hands, the keys of every page, and zoom."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, Route, expect

from tests.acceptance.harness import Stack
from tests.browser.conftest import screenshot
from tests.support.waiting import until

STATE, NEWS, HOLD = "[data-refresh-state]", "[data-news]", "[data-hold]"


def order(number: int, note: str = "") -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": note}
    return json.dumps({"event": "order.created", "data": data}).encode()


def refresh(page: Page) -> None:
    """Hold the page and go on: then it is refreshed at once."""
    with page.expect_response(lambda answer: "x-refresh" in answer.request.headers):
        page.keyboard.press("h")
        page.keyboard.press("h")


def test_a_list_changes_in_place_and_does_not_move_under_the_hands(
    page: Page, stack: Stack
) -> None:
    (stack.folder / "broken").touch()
    stack.post_all([order(number, "fails") for number in range(60)])
    stack.wait_until_idle()
    (stack.folder / "broken").unlink()
    page.goto("/events?q=type:order.*")
    rows = page.locator("#event-rows > tr")
    third = rows.nth(2)
    third.get_by_role("checkbox").check()
    page.keyboard.press("Escape")
    third.locator(".row-link").focus()
    page.get_by_text("What can be searched").evaluate("it => it.parentElement.open = true")
    page.evaluate("scrollTo(0, 400)")
    top = third.evaluate("row => row.getBoundingClientRect().top")
    name = third.locator(".row-link").get_attribute("href") or ""
    for number in (901, 902, 903):
        stack.post(order(number))
    stack.tell(f"{name}/replay", {"reason": "mended"})
    stack.wait_until_idle()
    refresh(page)
    expect(page.locator(NEWS)).to_have_text("3 new events: show")
    expect(third.locator(".badge").first).to_have_text("succeeded")
    expect(rows).to_have_count(50)
    expect(third.get_by_role("checkbox")).to_be_checked()
    expect(third.locator(".row-link")).to_be_focused()
    expect(third.locator(".row-link")).to_have_attribute("href", name)
    expect(page.locator("[data-selected]")).to_have_text("1 selected")
    expect(page.locator("#search-help")).to_have_attribute("open", "")
    assert third.evaluate("row => row.getBoundingClientRect().top") == pytest.approx(top, abs=2)
    screenshot(page, "events-announced")
    page.keyboard.press("n")
    expect(rows.first).to_contain_text("903")
    expect(rows.first.locator(".row-link")).to_be_focused()
    expect(page.locator(NEWS)).to_be_hidden()
    expect(rows).to_have_count(50)
    kept = rows.filter(has=page.get_by_role("checkbox", checked=True))
    expect(kept.locator(".row-link")).to_have_attribute("href", name)


def test_a_page_says_since_when_the_console_does_not_answer(page: Page, stack: Stack) -> None:
    page.goto("/processors")
    asked: list[str] = []
    answers = {"status": 0}

    def answer(route: Route) -> None:
        if "x-refresh" not in route.request.headers:
            return route.continue_()
        asked.append(route.request.url)
        if answers["status"]:
            return route.fulfill(status=answers["status"], body="")
        return route.abort()

    page.route("**/processors", answer)
    page.keyboard.press("h")
    expect(page.locator(STATE)).to_have_text(re.compile(r"^held since \d\d:\d\d$"))
    expect(page.locator(HOLD)).to_have_text("Go on")
    assert not asked
    page.keyboard.press("h")
    away = re.compile(r"^not refreshed since \d\d:\d\d:\d\d: the console does not answer$")
    expect(page.locator(STATE)).to_have_text(away)
    answers["status"] = 503
    page.keyboard.press("h")
    page.keyboard.press("h")
    expect(page.locator(STATE)).to_contain_text("the console answers 503")
    expect(page.get_by_role("heading", name="Processors")).to_be_visible()
    screenshot(page, "processors-away")
    page.unroute("**/processors")
    refresh(page)
    expect(page.locator(STATE)).to_have_text(re.compile(r"^refreshing every \d+ s$"))


def test_a_held_page_says_what_waits_and_stays_as_it_is_until_it_goes_on(
    page: Page, stack: Stack
) -> None:
    stack.post_all([order(number) for number in range(800, 803)])
    stack.wait_until_idle()
    page.goto("/events?q=type:order.*")
    rows = page.locator("#event-rows > tr")
    refresh(page)
    page.keyboard.press("h")
    seen = "rows => rows.map(row => [row.id, row.querySelector('.marks').innerText])"
    before = rows.evaluate_all(seen)
    stack.post_all([order(number) for number in (803, 804)] + [order(802)])  # one is a duplicate
    stack.wait_until_idle()
    state = page.locator(STATE)
    expect(state).to_have_text(
        re.compile(r"^held since \d\d:\d\d; 4 changes waiting: 2 new, 1 changed, other figures$")
    )
    screenshot(page, "events-held")
    assert rows.evaluate_all(seen) == before
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    page.keyboard.press("h")
    expect(page.locator("[data-news]")).to_have_text("2 new events: show")
    expect(state).to_have_text(re.compile(r"^refreshing every \d+ s$"))
    page.keyboard.press("n")
    expect(page.locator("#event-rows")).to_contain_text("803")
    expect(page.locator("#event-rows")).to_contain_text("804")


def test_a_held_page_asks_less_and_less_often_and_not_at_all_while_nobody_sees_it(
    page: Page, stack: Stack
) -> None:
    until(lambda: stack.value("SELECT count(*) FROM processors") > 2)
    asked: list[str] = []
    now = datetime.now(UTC)
    page.clock.install(time=now)
    page.clock.pause_at(now + timedelta(hours=1))  # far enough: time does not go back
    page.goto("/audit-log")
    page.on("request", lambda sent: asked.append(sent.url) if "/static/" not in sent.url else None)
    page.keyboard.press("h")
    for change in ("pause", "resume"):
        stack.tell(f"/processors/waits/{change}", {})
    page.clock.run_for(5_000)
    expect(page.locator(STATE)).to_contain_text("changes waiting: 2 new")
    page.clock.run_for(9_000)
    assert len(asked) == 1  # the next comes after ten seconds
    with page.expect_request_finished():
        page.clock.run_for(1_500)
    assert len(asked) == 2
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => true, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.clock.run_for(600_000)
    assert len(asked) == 2
    with page.expect_request_finished():
        page.evaluate(
            "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))"
        )
    assert len(asked) == 3
    expect(page.locator(STATE)).to_contain_text("held since")


def test_every_list_is_walked_by_keys_which_the_help_tells(page: Page, stack: Stack) -> None:
    stack.post_all([order(number) for number in range(3)])
    stack.wait_until_idle()
    page.goto("/")
    places = {"e": "/events", "p": "/processors", "s": "/sources", "u": "/audit-log", "o": "/"}
    for key, path in places.items():
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(lambda url, path=path: url.endswith(path))  # type: ignore[misc]
        page.locator("main").wait_for()
    page.goto("/processors")
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.locator("main tbody tr").nth(1)
    expect(second.locator("a").first).to_be_focused()
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog")
    expect(help_).to_contain_text("Pause (of the row)")
    expect(help_).to_contain_text("Audit log")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.wait_for_url(re.compile("/events"))
    expect(page.locator("[data-search]")).to_be_focused()
    page.keyboard.type("gp?h")
    expect(page.locator("[data-search]")).to_have_value("gp?h")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.url.partition("#")[0].endswith("/events")


def test_an_action_is_sent_once_and_says_what_was_done_and_the_way_back(
    page: Page, stack: Stack
) -> None:
    until(lambda: stack.value("SELECT count(*) FROM processors") > 2)
    page.goto("/processors")
    row = page.locator("#processor-waits")
    row.locator("a").first.focus()
    page.keyboard.press("p")
    page.get_by_role("dialog").get_by_label("Reason").fill("a deploy")
    page.keyboard.press("Enter")
    done = page.get_by_role("region", name="What was done")
    expect(done).to_contain_text("waits is paused: its jobs wait.")
    screenshot(page, "processors-done")
    refresh(page)
    expect(done).to_be_visible()
    sent = "SELECT count(*) FROM actions WHERE action = 'resume' AND target = 'waits'"
    before = stack.value(sent)
    page.evaluate(
        "for (const button of document.querySelectorAll('[data-key=u]'))"
        " { button.click(); button.click(); button.form.requestSubmit(button); }"
    )
    expect(done).to_contain_text("waits is resumed: its jobs run again.")
    assert stack.value(sent) == before + 1
    done.get_by_role("link", name="Its record").click()
    expect(page.locator("tr:target")).to_contain_text("resume")


def test_a_processor_is_looked_at_paused_and_its_dead_letters_replayed_with_keys_alone(
    page: Page, stack: Stack
) -> None:
    (stack.folder / "broken").touch()
    stack.post_all([order(number, note="fails") for number in range(700, 703)])
    stack.wait_until_idle()
    page.goto("/processors")
    page.locator("#processor-whims a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/processors/whims$"))
    expect(page.locator("main")).to_contain_text("Does what the order says.")
    screenshot(page, "processor")
    page.keyboard.press("p")
    page.get_by_role("dialog").get_by_label("Reason").fill("the CRM is away")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("Paused by local: the CRM is away")
    assert page.url.endswith("/processors/whims")
    screenshot(page, "processor-paused")
    page.keyboard.press("p")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("active")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", level=1)).to_contain_text("This will replay")


def test_what_is_dragged_over_in_a_chart_is_the_time_of_the_page(page: Page, stack: Stack) -> None:
    stack.post_all([order(number) for number in range(3)])
    stack.wait_until_idle()
    page.goto("/")
    chart = page.locator(".chart .area").first
    box = chart.bounding_box()
    assert box is not None
    y = box["y"] + 40
    page.mouse.move(box["x"] + box["width"] * 0.76, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, y)
    page.mouse.move(box["x"] + box["width"] - 2, y)
    screenshot(page, "overview-dragged")
    page.mouse.up()
    page.wait_for_url(re.compile(r"\?since=.*&until="))
    expect(page.locator(".chart .slot").first).to_be_attached()
    screenshot(page, "overview-zoomed")
    page.locator('[data-bar][tabindex="0"]').first.focus()
    page.keyboard.press("z")
    expect(page.locator(".chart").first.locator(".slot")).to_have_count(1)
    page.get_by_role("link", name="Events of this time").click()
    expect(page.locator("#event-rows > tr").first).to_contain_text("order.created")
    page.go_back()
    page.keyboard.press("Z")
    page.wait_for_url(re.compile(r"\?range=hour$"))
