"""Seven tasks of finding out: one order, one customer, a cause, the backlog, a 401, conflicts."""

import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.acceptance.harness import request
from tests.browser.tasks.conftest import Shop, body, order
from tests.browser.tasks.counting import Counted, Hand, check
from tests.support.retention import admit, deliver_at

NUMBERS = {"mouse": 1, "keyboard": 2}
ARABIC = "أين طلبي؟"


def test_everything_about_one_order(counted: Counted, shop: Shop, hand: Hand) -> None:
    number = 700 + NUMBERS[hand]
    changed = {"order_id": number, "old_status": "pending", "new_status": "shipped"}
    shop.post(order(number, total=12.5, note=ARABIC), body("order.status.updated", **changed))
    counted.start()
    counted.search(str(number))
    offered = counted.page.get_by_role("navigation", name="Pages that the search may mean")
    found = offered.get_by_role("link", name=f"Order {number}", exact=True)
    counted.act(found, "o")
    counted.ready(f"Order {number}")
    expect(counted.page.locator("#entries .entry")).to_have_count(2)
    expect(counted.page.locator(".model-row").first).to_contain_text("shipped")
    check("everything about one order", hand, counted.count)


def test_why_it_failed(counted: Counted, shop: Shop, hand: Hand) -> None:
    away = shop.stack.folder / f"away-{hand}"
    shop.begin_without_failures()
    away.touch()
    shop.post(body(f"stock.{hand}", id=1))
    away.unlink()
    page = counted.page
    counted.start()
    expect(page.locator(".ranking > li")).to_have_count(1)
    why = page.locator(f"#dead-of-crm_of_{hand}").get_by_role("link", name="the CRM is away")
    counted.act(why, "j", "w")
    expect(page.get_by_text("raise ConnectionError").first).to_be_visible()
    check("why did it fail", hand, counted.count)


def test_one_customer_in_time_order(counted: Counted, shop: Shop, hand: Hand) -> None:
    phone, contact = f"96651234000{NUMBERS[hand]}", 50 + NUMBERS[hand]
    shop.post(body("contact.created", id=contact, name="سارة", phone=phone))
    for number in range(3):
        said = {"message_id": f"wamid.{hand}{number}", "conversation_id": contact, "from": phone}
        shop.post(body("message.received", **said, body=f"{ARABIC} {number}"))
    counted.start()
    counted.search(f"+{phone}")
    offered = counted.page.get_by_label("Pages that the search may mean").get_by_role("link")
    counted.act(offered.first, "o")
    entries = counted.page.locator("#entries .entry")
    expect(entries).to_have_count(4)
    times = [
        datetime.fromisoformat(moment)
        for moment in entries.locator("time").evaluate_all(
            "all => all.map(time => time.getAttribute('datetime'))"
        )
    ]
    assert times == sorted(times, reverse=True)
    check("one customer in time order", hand, counted.count)


def test_are_we_behind_and_since_when(counted: Counted, shop: Shop, hand: Hand) -> None:
    since = datetime.now(UTC) - timedelta(minutes=3)
    with shop.stack.engine.begin() as connection:  # no worker consumes their queue
        connection.exec_driver_sql(
            "INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at,"
            " queue, hint_at) SELECT gen_random_uuid(), 'awalchat', 'lost:' || n, 'lost', '',"
            " %s, 'nobody', now() FROM generate_series(1, 1234) AS n",
            (since,),
        )
    counted.start()
    backlog = counted.page.get_by_role("region", name="Backlog")
    expect(backlog).to_contain_text("1,234 behind")
    expect(backlog.locator("time")).to_have_attribute(
        "datetime", re.compile(f"^{since:%Y-%m-%dT%H:%M}")
    )
    with shop.stack.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM unadmitted WHERE queue = 'nobody'")
    expect(backlog).to_contain_text("Nothing is behind")
    check("are we behind and since when", hand, counted.count)


def test_why_the_sender_sees_401(counted: Counted, shop: Shop, hand: Hand) -> None:
    forged = {"x-awal-webhook-signature": "0", "x-awal-webhook-timestamp": "1"}
    answer = request(shop.stack.ports[0], "POST", "/webhooks/awalchat", order(1), forged)
    assert answer.status == 401
    page = counted.page
    counted.start()
    tile = page.get_by_role("link", name=re.compile("^Refused [1-9]"))
    counted.act(tile, "g", "d")
    counted.ready("Refused")
    reason = page.locator("li.reason").filter(has_text="401").first
    expect(reason).to_contain_text(answer.json["message"])
    expect(reason.locator(".cause")).not_to_be_empty()
    expect(reason.locator(".advice").first).not_to_be_empty()
    check("why does the sender see 401", hand, counted.count)


def test_yesterdays_conflicts(counted: Counted, shop: Shop, hand: Hand) -> None:
    began = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    made_on = {"the day before": began - timedelta(days=1), "the day": began}
    for name, at in made_on.items():
        contents = ("one body", "another body")
        made = [
            deliver_at(
                shop.stack.engine, f"{name}:{hand}", at, content=content, type_="stock.moved"
            )
            for content in contents
        ]
        admit(shop.stack.engine, made, processors=())
    counted.start()
    counted.search("is:conflict since:yesterday until:today")
    rows = counted.page.locator("#event-rows > tr")
    expect(rows.filter(has_text=f":{hand}")).to_have_count(1)
    is_same_day = datetime.now(UTC) < began + timedelta(days=1)
    # Where midnight has passed since, either day may have been the one before when it was asked.
    names = ("the day before",) if is_same_day else ("the day before", "the day")
    expect(rows.filter(has_text=re.compile(f"({'|'.join(names)}):{hand}"))).to_have_count(1)
    check("yesterday's conflicts", hand, counted.count)
