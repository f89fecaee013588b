"""The life of a failure: seen, taken, noted, resolved when its replay has succeeded, and back."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.harness import Stack
from tests.browser.conftest import screenshot
from tests.support.waiting import until

STATE = "SELECT state FROM failure_groups"


def order(number: int) -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": "fails"}
    return json.dumps({"event": "order.created", "data": data}).encode()


@pytest.fixture
def broken(stack: Stack) -> Iterator[None]:
    """The CRM is away until the test says that it is back."""
    (stack.folder / "broken").touch()
    yield
    (stack.folder / "broken").unlink(missing_ok=True)


def fail(stack: Stack, *numbers: int) -> None:
    """Have orders come that fail until they are dead, and be counted."""
    assert {each.status for each in stack.post_all([order(number) for number in numbers])} == {200}
    stack.wait_until_idle()
    until(lambda: stack.value("SELECT count(*) FROM ungrouped") == 0, what="they are counted")


def test_a_failure_is_looked_after_resolved_and_told_when_it_returns(
    page: Page, stack: Stack, broken: None
) -> None:
    """With the keyboard alone, but for what is typed."""
    fail(stack, 1, 2, 3)
    page.goto("/")
    page.keyboard.press("g")
    page.keyboard.press("f")
    row = page.get_by_role("row").filter(has_text="the CRM is away")
    expect(row).to_contain_text("3 dead")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="ConnectionError")).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator("#state")).to_have_text("acknowledged")
    expect(page.get_by_text("is acknowledged: somebody looks after it.")).to_be_visible()
    page.keyboard.press("i")
    expect(page.locator(".facts")).to_contain_text("local")
    page.get_by_label("A note").fill("The CRM moved to another address.")
    page.get_by_role("button", name="Add the note").click()
    expect(page.get_by_role("region", name="Notes")).to_contain_text("moved to another address")
    screenshot(page, "failure")
    page.get_by_label("How it is resolved").select_option("when all of it has succeeded")
    page.locator("h1").click()
    page.keyboard.press("e")
    expect(page.locator("#history")).to_contain_text("when everything of it has succeeded")

    (stack.folder / "broken").unlink()
    page.keyboard.press("r")
    page.get_by_role("button", name="Replay 3").click()
    until(lambda: stack.value(STATE) == "resolved", what="it has resolved itself")
    page.goto("/failures")
    expect(page.get_by_text("Nothing fails")).to_be_visible()
    page.get_by_role("navigation", name="State").get_by_role("link", name="Resolved").click()
    expect(page.get_by_role("row").filter(has_text="ConnectionError")).to_contain_text("none now")

    (stack.folder / "broken").touch()
    fail(stack, 4)
    until(lambda: stack.value(STATE) == "open", what="it is back")
    page.goto("/failures")
    expect(page.get_by_role("row").filter(has_text="ConnectionError")).to_contain_text("back")
    page.goto("/alerts")
    until(
        lambda: (
            "failure_back" in {one["rule"] for one in stack.ask("/api/v1/alerts").json["items"]}
        ),
        what="the alert fires",
    )
    page.reload()
    back = page.get_by_text("failure 1 (ConnectionError of whims) is back").first
    expect(back).to_be_visible()
    page.goto("/failures/1")
    expect(page.locator("#history")).to_contain_text("came back")
    page.keyboard.press("m")
    expect(page.locator("#history")).to_contain_text("muted for ever")
    for width in (390, 1024, 1440):
        page.set_viewport_size({"width": width, "height": 844})
        for path in ("/failures/1", "/failures?state=all"):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            screenshot(page, f"{path.strip('/').replace('/', '-').partition('?')[0]}-{width}")
