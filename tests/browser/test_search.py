"""A search as a user types it: completion, help, what is not understood, order, saved views."""

import json
import re

from playwright.sync_api import Page, expect

from tests.acceptance.harness import Stack
from tests.browser.conftest import screenshot


def order(number: int, total: int) -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "total": total}
    return json.dumps({"event": "order.created", "data": data}).encode()


def tag(number: int) -> bytes:
    return json.dumps({"event": "tag.added", "data": {"tag_id": number}}).encode()


def test_a_search_is_typed_with_the_keyboard_kept_and_opened_again(
    page: Page, stack: Stack
) -> None:
    stack.post_all([*(order(number, total=number * 100) for number in range(1, 8)), tag(1)])
    stack.wait_until_idle()
    page.goto("/events")
    field = page.locator("[data-search]")
    options = page.get_by_role("listbox", name="What can be typed").get_by_role("option")
    page.keyboard.press("/")
    page.keyboard.type("-ty")
    expect(options).to_have_count(1)  # asked of the console, the first time
    expect(field).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    expect(field).to_have_value("-type:")
    expect(options).to_have_text(["order.created", "tag.added"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    screenshot(page, "search-completion")
    page.keyboard.press("Enter")
    expect(field).to_have_value("-type:tag.added ")
    page.keyboard.type("data.total:>300 st")
    expect(options).to_have_count(1)
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    expect(field).to_be_focused()
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    rows = page.locator(".table.events tbody tr")
    expect(rows).to_have_count(4)
    expect(page.locator("#read-to")).to_have_text("Read to the end.")
    names = rows.locator(".event-name")
    newest = names.all_text_contents()
    page.get_by_role("link", name="Oldest first").click()
    expect(names).to_have_text(newest[::-1])
    page.get_by_text("Saved views").click()
    page.get_by_label("Name of this search").fill("طلبات كبيرة")
    page.get_by_role("button", name="Save this search").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("طلبات كبيرة")
    page.goto("/events")
    page.get_by_text("Saved views").click()
    screenshot(page, "search-views")
    page.get_by_role("link", name="طلبات كبيرة").click()
    expect(names).to_have_text(newest[::-1])
    page.get_by_text("Saved views").click()
    page.get_by_label("New name of طلبات كبيرة").fill("large orders")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("large orders")
    page.get_by_text("Saved views").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    page.get_by_text("Saved views").click()
    expect(page.get_by_text("No search was saved yet")).to_be_visible()
    page.goto("/audit-log")
    done = page.locator("tbody tr")
    for number, action in enumerate(("delete view", "rename view", "save view")):
        expect(done.nth(number)).to_contain_text(action)


def test_what_is_not_understood_is_shown_where_it_is_and_stops_a_replay(page: Page) -> None:
    page.goto("/events?q=type:order.*+stat:dead+%22a+text%22+data.total:%3Emuch")
    expect(page.locator("#problems mark")).to_have_text(["stat:dead", "data.total:>much"])
    expect(page.locator("#problems")).to_contain_text("did you mean state?")
    expect(page.get_by_role("button", name=re.compile("that match"))).to_have_count(0)
    screenshot(page, "search-problems")
    page.get_by_text("What can be searched").click()
    screenshot(page, "search-help")
    page.get_by_role("link", name="-data.vip:true").click()
    expect(page.locator("[data-search]")).to_have_value("-data.vip:true")
    expect(page.locator("#problems")).to_have_count(0)
