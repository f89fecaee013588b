"""Four tasks of mending: a replay cancelled half way, unhandled events, an edited one, a file."""

import csv
import re
from pathlib import Path

from playwright.sync_api import expect

from tests.acceptance.harness import Stack
from tests.browser.tasks.conftest import Shop, body, order
from tests.browser.tasks.counting import Counted, Hand, check
from tests.support.waiting import until

NUMBERS = {"mouse": 1, "keyboard": 2}
DEAD = 600
"""Dead letters: far more than two processes of a worker claim at once."""
ARABIC = "الطلب يصل غدًا"
LATE = '''
from sqlalchemy import Connection

from workers import Event, processor


@processor("refund.{hand}", name="refunds_of_{hand}")
def refund(event: Event, db: Connection) -> None:
    """Give the money back."""
'''


def states(stack: Stack, processor: str) -> dict[str, int]:
    """How many jobs of a processor are in each state, but for those that nobody wants."""
    sql = (
        "SELECT state, count(*) AS jobs FROM jobs"
        " WHERE processor = :name AND discarded_at IS NULL GROUP BY state"
    )
    return {row["state"]: row["jobs"] for row in stack.query(sql, name=processor)}


def test_one_error_is_replayed_after_the_mend_and_cancelled_half_way(
    counted: Counted, shop: Shop, hand: Hand
) -> None:
    page, stack, crm = counted.page, shop.stack, f"crm_of_{hand}"
    away, slow = (stack.folder / f"{name}-{hand}" for name in ("away", "slow"))
    shop.begin_without_failures()
    away.touch()
    shop.post(*(body(f"stock.{hand}", id=number) for number in range(DEAD)))
    assert states(stack, crm) == {"dead": DEAD}
    away.unlink()
    slow.touch()
    counted.start()
    counted.go("Failures", "gf")
    row = page.get_by_role("row").filter(has_text=crm)
    counted.act(row.get_by_role("button", name=re.compile("^Replay all")), "j", "r")
    counted.ready("This will replay")
    counted.act(page.get_by_role("button", name=re.compile("^Replay .* jobs")), "Enter")
    counted.ready("Replay")
    running = page.locator("#bulk-action .outcome li").filter(has_text="running")
    expect(running.get_by_role("link")).to_be_visible()
    counted.act(page.get_by_role("button", name="Cancel", exact=True), "c")
    counted.act(page.get_by_role("dialog").get_by_role("button", name="Confirm"), "Enter")
    expect(page.locator("#bulk-action .badge").first).to_have_text("cancelled")
    expect(page.locator("#bulk-action .outcome")).to_contain_text("taken back")
    check("replay one error after the mend and cancel half way", hand, counted.count)
    slow.unlink()
    stack.wait_until_idle()
    ended = states(stack, crm)
    assert set(ended) == {"dead", "succeeded"}
    assert sum(ended.values()) == DEAD
    others = (
        "SELECT count(*) FROM jobs WHERE processor = :name"
        " AND (state, attempt) NOT IN (('dead', 1), ('succeeded', 2))"
    )
    assert stack.value(others, name=crm) == 0, "what was taken back is what it was before"


def test_what_was_unhandled_is_processed(counted: Counted, shop: Shop, hand: Hand) -> None:
    page, stack, late = counted.page, shop.stack, f"late_{hand}"
    shop.post(*(body(f"refund.{hand}", id=number) for number in range(3)))
    (stack.folder / f"{late}.py").write_text(LATE.format(hand=hand))
    shop.deploy(late)
    name = f"refunds_of_{hand}"
    registered = "SELECT count(*) FROM processors WHERE name = :name"
    until(lambda: stack.value(registered, name=name) == 1, what="the late worker has registered")
    counted.start()
    offer = page.get_by_role("region", name="Unhandled events that a processor takes now")
    counted.act(offer.get_by_role("button", name="Replay them"), "U")
    counted.ready("This will replay")
    counted.act(page.get_by_role("button", name=re.compile("^Replay .* job")), "Enter")
    counted.ready("Replay")
    expect(page.locator("#bulk-action .badge").first).to_have_text("finished")
    assert states(stack, name) == {"succeeded": 3}
    check("process what was unhandled", hand, counted.count)


def test_an_event_is_changed_and_sent_again(counted: Counted, shop: Shop, hand: Hand) -> None:
    page, number = counted.page, 900 + NUMBERS[hand]
    shop.post(order(number))
    counted.start()
    counted.search(f"order:{number}")
    row = page.locator("#event-rows > tr").get_by_role("link").first
    counted.act(row, "j", "Enter")
    counted.ready(f"Order {number}")
    counted.act(page.get_by_role("link", name="Edit and send again"), "e")
    counted.ready("Edit and send again")
    field = page.get_by_label("Body")
    expect(field).to_be_focused()
    counted.press("Control+a")
    counted.type(order(number, note=ARABIC).decode())
    counted.act(page.get_by_role("button", name="Send", exact=True), "Escape", "s")
    expect(page.get_by_role("heading", name="Edited and sent again")).to_be_visible()
    expect(page.get_by_role("link", name="The copy")).to_be_visible()
    check("change and resend", hand, counted.count)
    shop.stack.wait_until_idle()
    copied = (
        "SELECT count(*) FROM deliveries WHERE position(:note IN convert_from(body, 'UTF8')) > 0"
    )
    assert shop.stack.value(f"{copied} AND source = 'operator'", note=f"{number}, ") == 1


def test_failures_are_exported(counted: Counted, shop: Shop, hand: Hand, tmp_path: Path) -> None:
    page, away = counted.page, shop.stack.folder / f"away-{hand}"
    shop.begin_without_failures()
    away.touch()
    shop.post(body(f"stock.{hand}", id=f"exported-{hand}"))
    away.unlink()
    counted.start()
    expect(page.locator(".ranking > li")).to_have_count(1)
    ranked = page.locator(f"#dead-of-crm_of_{hand}").get_by_role("link").first
    counted.act(ranked, "j", "Enter")
    counted.ready("Events")
    counted.act(page.locator("summary").filter(has_text="Export"), "e")
    with page.expect_download() as begun:
        counted.act(page.get_by_role("button", name="Export all that match"), "E")
    file = tmp_path / "failures.csv"
    begun.value.save_as(file)
    written = list(csv.DictReader(file.read_text("utf-8-sig").splitlines()))
    dead = (
        "SELECT event::text FROM jobs"
        " WHERE state = 'dead' AND discarded_at IS NULL AND processor = :name"
    )
    wanted = {row["event"] for row in shop.stack.query(dead, name=f"crm_of_{hand}")}
    assert {row["id"] for row in written} == wanted != set()
    assert {row["error"] for row in written} == {"ConnectionError: the CRM is away"}
    check("export failures", hand, counted.count)
