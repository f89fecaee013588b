"""Five tasks of operating: a pause, a key, an erasure, an alert, a view that is shared."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.harness import request
from tests.browser.tasks.conftest import Shop, body, order
from tests.browser.tasks.counting import Counted, Hand, check
from tests.support.waiting import until

NUMBERS = {"mouse": 1, "keyboard": 2}
TEST = "Test of the channel team, by local: alerts arrive here."


def test_a_processor_is_paused_and_resumed(counted: Counted, shop: Shop, hand: Hand) -> None:
    page, stack = counted.page, shop.stack
    counted.start()
    counted.go("Processors", "gp")
    first = page.locator("main tbody tr").first
    name = (first.get_attribute("id") or "").removeprefix("processor-")
    paused = "SELECT paused_at IS NOT NULL FROM processors WHERE name = :name"
    counted.act(first.get_by_role("button", name="Pause"), "j", "p")
    counted.act(page.get_by_role("dialog").get_by_role("button", name="Confirm"), "Enter")
    done = page.get_by_role("region", name="What was done")
    expect(done).to_contain_text(f"{name} is paused")
    assert stack.value(paused, name=name) is True
    counted.ready("Processors")
    counted.act(done.get_by_role("button", name="Undo"), "u")
    expect(done).to_contain_text(f"{name} is resumed")
    assert stack.value(paused, name=name) is False
    check("pause and resume", hand, counted.count)


def from_github(shop: Shop, secret: str, number: str) -> int:
    """Post what GitHub would, and return how it is answered."""
    content = json.dumps({"zen": number}).encode()
    digest = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-github-event": "ping",
        "x-github-delivery": number,
        "x-hub-signature-256": f"sha256={digest}",
    }
    return request(shop.stack.ports[0], "POST", "/webhooks/github", content, headers).status


def test_a_key_is_rotated(counted: Counted, shop: Shop, hand: Hand) -> None:
    """The secrets are in a file, not in the console. Its page says when the old one may go."""
    page, file = counted.page, shop.github_secrets
    old, new = file.read_text(), f"the_next_secret_of_GitHub_{hand}"
    until(lambda: from_github(shop, old, f"{hand}-1") == 200, what="the old key is known")
    counted.start()
    counted.go("Sources", "gs")
    rows = page.locator("tr[id^=key-github]").filter(has_text="live")
    expect(rows).to_have_count(1)
    file.write_text(f"{new}\n{old}")
    expect(rows).to_have_count(2)
    until(lambda: from_github(shop, new, f"{hand}-2") == 200, what="the new key is known")
    expect(rows.locator("[data-label='Last hour'].faint")).to_have_count(0)  # both are used
    file.write_text(new)
    expect(rows).to_have_count(1)
    until(lambda: from_github(shop, old, f"{hand}-3") == 401, what="the old key is retired")
    expect(page.locator("tr[id^=key-github]").filter(has_text="retired").first).to_be_visible()
    check("rotate a key", hand, counted.count)


def test_a_customer_is_erased(counted: Counted, shop: Shop, hand: Hand) -> None:
    page, phone = counted.page, f"96653333444{NUMBERS[hand]}"
    contact = 60 + NUMBERS[hand]
    shop.post(body("contact.created", id=contact, name="نورة", phone=phone))
    counted.start()
    counted.go("Erasures", "gx")
    field = page.get_by_label(re.compile("^Phone numbers"))
    counted.act(field, "i")
    expect(field).to_be_focused()
    counted.type(f"+{phone}")
    counted.act(page.get_by_role("button", name="Search for the person"), "Escape", "s")
    counted.ready("Erasure ")
    again = page.get_by_label(re.compile("Type the number or the id again"))
    counted.act(again, "i")
    expect(again).to_be_focused()
    counted.type(phone)
    expect(again).to_have_value(phone)
    counted.act(page.get_by_role("button", name="Erase the person"), "Enter")
    expect(page.locator("#erasure .badge").first).to_have_text("finished")
    check("erase a customer", hand, counted.count)
    assert shop.stack.value("SELECT count(*) FROM contacts WHERE phone = :phone", phone=phone) == 0


def told(shop: Shop) -> str:
    """What the channel was told so far."""
    return "\n".join(json.loads(message)["text"] for _, message in list(shop.slack.taken))


def test_somebody_is_told_of_dead_letters(counted: Counted, shop: Shop, hand: Hand) -> None:
    """The channel stands in a file. The page tries it; then a dead letter is told."""
    page = counted.page
    shop.begin_without_failures()
    counted.start()
    counted.go("Alerts", "ga")
    expect(page.get_by_text("Nothing fires")).to_be_visible()
    row, before = page.get_by_role("row").filter(has_text="team"), told(shop).count(TEST)
    counted.act(row.get_by_role("button", name="Test"), "j", "t")
    expect(page.get_by_role("region", name="What was done")).to_contain_text("was tested")
    assert told(shop).count(TEST) == before + 1
    check("be told of dead letters", hand, counted.count)
    away = shop.stack.folder / f"away-{hand}"
    away.touch()
    shop.post(body(f"stock.{hand}", id=1))
    away.unlink()
    until(lambda: f"crm_of_{hand} has 1 dead letter" in told(shop), what="the channel is told")


@pytest.fixture
def colleague(browser: Browser, shop: Shop) -> Iterator[Counted]:
    """Another browser."""
    context = browser.new_context(base_url=f"http://127.0.0.1:{shop.stack.console_port}")
    yield Counted(context.new_page(), "mouse")
    context.close()


def test_a_view_is_shared(counted: Counted, colleague: Counted, shop: Shop, hand: Hand) -> None:
    """What is copied opens the same view in another browser."""
    page, number = counted.page, 500 + 10 * NUMBERS[hand]
    shop.post(*(order(number + more, total=more) for more in range(3)))
    counted.start()
    counted.search(f"type:order.created data.order_id:>{number}")
    rows = page.locator("#event-rows .row-link")
    shown = rows.evaluate_all("all => all.map(link => link.href)")
    button = page.get_by_role("button", name="Copy the address")
    counted.act(button, "y")
    expect(button).to_have_class(re.compile("is-done"))
    check("share this view", hand, counted.count)
    colleague.page.goto(page.evaluate("navigator.clipboard.readText()"))
    theirs = colleague.page.locator("#event-rows .row-link")
    assert theirs.evaluate_all("all => all.map(link => link.href)") == shown != []
