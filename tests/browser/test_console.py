"""What people do with the console, in a real browser."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.harness import Stack
from tests.browser.conftest import screenshot
from tests.support.waiting import until

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
ARABIC = "أين طلبي؟"


def order(number: int, note: str = "", **more: object) -> bytes:
    data = {"order_id": number, "conversation_id": 7, "status": "pending", "note": note} | more
    return json.dumps({"event": "order.created", "data": data}, ensure_ascii=False).encode()


def message(number: int, text: str) -> bytes:
    data = {
        "message_id": f"wamid.{number}",
        "conversation_id": 7,
        "from": "966512345678",
        "to": "966500000000",
        "type": "text",
        "body": text,
    }
    return json.dumps({"event": "message.received", "data": data}, ensure_ascii=False).encode()


@pytest.fixture
def broken(stack: Stack) -> Iterator[None]:
    """The CRM is away while the test posts its orders."""
    (stack.folder / "broken").touch()
    yield
    (stack.folder / "broken").unlink(missing_ok=True)


def post(stack: Stack, *bodies: bytes) -> None:
    answers = stack.post_all(bodies)
    assert {each.status for each in answers} == {200}
    stack.wait_until_idle()


def test_at_night_orders_are_missing(page: Page, stack: Stack, broken: None) -> None:
    """From the overview to the dead letter, its cause, and its replay."""
    post(stack, *(order(100 + number, "fails") for number in range(3)), order(110))
    (stack.folder / "broken").unlink()
    until(lambda: stack.value("SELECT count(*) FROM failure_groups") == 1, what="it is recorded")
    page.goto("/")
    expect(page.get_by_role("heading", name="Dead letters by processor")).to_be_visible()
    page.get_by_role("link", name=re.compile("^Failures")).first.click()
    row = page.get_by_role("row").filter(has_text="the CRM is away")
    expect(row).to_contain_text("whims")
    expect(row).to_contain_text("shop_processors:whims")
    row.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="ConnectionError")).to_be_visible()
    page.get_by_role("region", name="Events that fail so now").get_by_role("link").first.click()
    expect(page.get_by_text("ConnectionError").first).to_be_visible()
    expect(page.locator(".timeline .attempt").filter(has_text="failed")).to_have_count(3)
    page.get_by_text("Traceback").first.click()
    expect(page.get_by_text("raise ConnectionError").first).to_be_visible()
    page.get_by_label("Reason").first.fill("the CRM is back")
    page.get_by_role("button", name="Replay", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("replay by local").first).to_be_visible()
    expect(page.locator(".event-head .badge, .page-head .badge").first).to_have_text("succeeded")
    expect(page.get_by_text("the CRM is back").first).to_be_visible()


def test_are_we_behind_and_since_when(page: Page, stack: Stack) -> None:
    """The first line of the overview says it, and a bar of a chart leads to its events."""
    post(stack, *(order(4_000 + number) for number in range(3)))
    with stack.engine.begin() as connection:  # no worker consumes their queue
        connection.exec_driver_sql(
            "INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at,"
            " queue, hint_at) SELECT gen_random_uuid(), 'awalchat', 'lost:' || n, 'lost', '',"
            " now() - interval '3 min', 'nobody', now() FROM generate_series(1, 1234) AS n"
        )
    backlog = page.get_by_role("region", name="Backlog")
    page.goto("/")
    expect(backlog).to_contain_text("1,234 behind")  # the page refreshes itself
    expect(backlog).to_contain_text("1,234 deliveries to admit, 0 jobs due")
    expect(backlog).to_contain_text(re.compile(r"late by\s*3 min"))
    expect(backlog.locator("time")).to_contain_text("GMT+3")
    with stack.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM unadmitted WHERE queue = 'nobody'")
    expect(backlog).to_contain_text("Nothing is behind")
    page.get_by_role("link", name="processor", exact=True).click()
    expect(page.get_by_role("heading", name="Attempts by processor")).to_be_visible()
    page.locator('[data-bar][tabindex="0"]').first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-search]")).to_have_value(re.compile("since:.* until:"))
    expect(page.get_by_role("row").filter(has_text="order.created").first).to_be_visible()


def test_all_that_match_are_replayed_with_a_preview_and_their_progress(
    page: Page, stack: Stack, broken: None
) -> None:
    post(stack, *(order(200 + number, "fails") for number in range(12)))
    (stack.folder / "broken").unlink()
    page.goto("/events?q=state:dead+type:order.*")
    page.get_by_role("button", name=re.compile("^Replay all that match")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("This will replay")
    page.locator("main input[name=reason]").fill("the CRM is back")
    page.get_by_role("button", name=re.compile("^Replay .* job")).click()
    expect(page.locator("#bulk-action .badge").first).to_have_text("finished")
    stack.wait_until_idle()
    page.goto("/events?q=state:dead+type:order.*")
    expect(page.get_by_text("No event matches")).to_be_visible()
    page.goto("/audit-log")
    expect(page.get_by_role("row").nth(1)).to_contain_text("the CRM is back")


def test_a_long_replay_is_paused_and_cancelled(page: Page, stack: Stack) -> None:
    post(stack, *(order(10_000 + number) for number in range(1_500)))
    page.goto("/events?q=state:succeeded+type:order.created")
    page.get_by_role("button", name=re.compile("^Replay all that match")).click()
    page.get_by_role("button", name=re.compile("^Replay .* job")).click()
    # A lock on the jobs is what makes it long.
    with stack.engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE")
        page.goto(page.url)
        page.get_by_role("button", name="Pause", exact=True).click(no_wait_after=True)
    badge = page.locator("#bulk-action .badge").first
    expect(badge).to_have_text("paused")
    expect(page.locator("#bulk-action progress")).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(badge).to_have_text("cancelled")
    stack.wait_until_idle(timeout_s=60)
    page.reload()
    page.locator("#bulk-action .outcome a").filter(has_text="taken back").click()
    expect(page).to_have_url(re.compile("taken_back"))
    expect(page.locator("tr[data-row] .badge").first).to_have_text("succeeded")


def test_a_person_is_found_confirmed_and_erased(page: Page, stack: Stack) -> None:
    """The number is typed twice, and stands in no address and on no page."""
    sent = message(41, "please forget me").replace(b"966512345678", b"966533334444")
    post(stack, sent.replace(b'"conversation_id": 7', b'"conversation_id": 77'))
    page.goto("/erasures")
    page.get_by_label(re.compile("^Phone numbers")).fill("+966 53 333 4444")
    page.locator("main input[name=reason]").fill("a letter of the first of May")
    page.get_by_role("button", name="Search for the person").click()
    badge = page.locator("#erasure .badge").first
    expect(badge).to_have_text("to be confirmed")
    expect(page.get_by_text("Known of this person: 1 phone number")).to_be_visible()
    page.get_by_label(re.compile("Type the number or the id again")).fill("966533334444")
    page.get_by_role("button", name="Erase the person").click()
    expect(badge).to_have_text("finished")
    expect(page.get_by_text("VACUUM (FULL, ANALYZE)")).to_be_visible()
    assert "3334444" not in page.url + page.content()
    page.go_back()
    page.goto("/erasures")
    expect(page.get_by_label(re.compile("^Phone numbers"))).to_have_value("")
    expect(page.get_by_role("row").filter(has_text="first of May")).to_contain_text("finished")


def test_events_arrive_live_and_wait_while_it_is_paused(page: Page, stack: Stack) -> None:
    page.goto("/live?q=type:message.*")
    state = page.locator("[data-tail-state]")
    expect(state).to_have_text("connected")
    post(stack, order(300))
    post(stack, message(1, ARABIC))  # when it is there, the order before it would be
    expect(page.locator("tbody tr").filter(has_text="wamid.1")).to_be_visible()
    expect(page.locator("tbody tr").filter(has_text="300")).to_have_count(0)
    page.get_by_role("button", name=re.compile("pause", re.I)).click()
    post(stack, message(2, "paused"))
    expect(state).to_have_text(re.compile(r"^paused, \d+ held back$"))
    expect(page.locator("tbody tr").filter(has_text="wamid.2")).to_have_count(0)
    page.get_by_role("button", name=re.compile("resume|go on", re.I)).click()
    expect(page.locator("tbody tr").filter(has_text="wamid.2")).to_be_visible()
    post(stack, message(3, "again"))
    expect(page.locator("tbody tr").filter(has_text="wamid.3")).to_be_visible()


def test_a_row_says_what_happened_and_leads_to_its_event(page: Page, stack: Stack) -> None:
    """A customer's words in Arabic stand behind ours, and are cut at their own end."""
    post(stack, message(71, f"{ARABIC} " * 30), order(712, total=12.5, currency="SAR"))
    page.set_viewport_size({"width": 900, "height": 700})
    page.goto("/events")
    words = page.locator(".event-name b").filter(has_text=f"{ARABIC} {ARABIC}")
    expect(words).to_contain_text("Message from …678: ")
    box, text = words.bounding_box(), words.locator("bdi")
    cell = page.locator("td.grow").first.bounding_box()
    assert box is not None
    assert cell is not None
    assert box["x"] + box["width"] <= cell["x"] + cell["width"]
    assert text.evaluate("it => getComputedStyle(it).direction") == "rtl"
    assert text.evaluate("it => it.scrollWidth > it.clientWidth")
    page.get_by_role("link", name="Order 712 created, 12.5 SAR").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Order 712 created, 12.5 SAR")


def test_what_senders_write_is_text(page: Page, stack: Stack) -> None:
    post(stack, message(66, SCRIPT), order(667, customer=SCRIPT))
    for name in ("message.received:wamid.66", "order.created:667"):
        page.goto(f'/events?q=id:"{name}"')
        page.locator("tbody a.row-link").first.click()
        expect(page.get_by_text("onerror").first).to_be_visible()
        page.goto(f'/live?q="{SCRIPT}"')
        page.goto(f'/events?q="{SCRIPT}"')
        assert page.title() != "owned"
        expect(page.locator("main script, main img")).to_have_count(0)


def test_an_order_is_found_by_its_number_and_sent_again_with_another_note(
    page: Page, stack: Stack
) -> None:
    """From the search to the order's page, its event, the edited copy, and back."""
    post(stack, order(790, total=5))
    page.goto("/events")
    page.get_by_role("combobox", name="Search events").fill("790")
    page.keyboard.press("Enter")
    offered = page.get_by_role("navigation", name="Pages that the search may mean")
    offered.get_by_role("link", name="Order 790", exact=True).click()
    expect(page.get_by_role("heading", name="Order 790", exact=True)).to_be_visible()
    expect(page.locator(".model-row").first).to_contain_text("total")
    page.locator(".entries .event-name").first.click()
    page.get_by_role("link", name="Edit and send again").click()
    body = page.get_by_label("Body")
    original = body.input_value()
    body.fill("{")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("main").get_by_role("alert")).to_contain_text("does not send this")
    expect(body).to_have_value("{")
    body.fill(original.replace('"note": ""', f'"note": "{ARABIC}"'))
    page.get_by_role("textbox", name="Reason kept").fill("the note was missing")
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".diff-added")).to_contain_text(ARABIC)
    screenshot(page, "edited")
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("link", name="The copy").click(timeout=60_000)
    expect(page.get_by_text("Edited by")).to_be_visible()
    expect(page.get_by_text("the note was missing")).to_be_visible()
    page.get_by_role("link", name="the sender's event").click()
    expect(page.get_by_role("heading", name="Edited and sent again")).to_be_visible()
    page.get_by_role("link", name="Order 790", exact=True).click()
    expect(page.locator(".entries .entry")).to_have_count(2)
    screenshot(page, "order")


def test_it_is_used_by_keyboard(page: Page, stack: Stack) -> None:
    post(stack, *(order(400 + number) for number in range(3)))
    page.goto("/events")
    page.keyboard.press("/")
    expect(page.locator("[data-search]")).to_be_focused()
    page.keyboard.type("type:order.created")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=type"))
    page.locator("body").click(position={"x": 2, "y": 400})
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/events/[0-9a-f-]{36}"))
    page.keyboard.press("r")
    question = re.compile(r"Replay this event\?|Replay all jobs\? \d+ jobs? ha")
    expect(page.get_by_role("dialog")).to_contain_text(question)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard shortcuts")


def test_the_theme_is_chosen_and_remembered(page: Page) -> None:
    page.goto("/")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("[data-theme-toggle]").click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.goto("/events")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_times_are_the_viewers_own_with_utc_beside(page: Page, stack: Stack) -> None:
    post(stack, order(500))
    page.goto('/events?q=id:"order.created:500"')
    page.locator("tbody a.row-link").first.click()
    shown = page.locator("dl.facts time").first
    utc = shown.get_attribute("title") or ""
    assert "UTC" in utc
    hour = (int(utc[11:13]) + 3) % 24  # Riyadh
    expect(shown).to_contain_text(f"{hour:02d}:{utc[14:16]}")


def test_it_is_read_without_scripts(browser: Browser, stack: Stack) -> None:
    post(stack, order(600))
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{stack.console_port}", java_script_enabled=False
    )
    page = context.new_page()
    page.goto("/events?q=type:order.created")
    page.locator("tbody a.row-link").first.click()
    expect(page.get_by_text('"order_id"').first).to_be_visible()
    page.get_by_role("button", name="Replay all jobs").click()
    stack.wait_until_idle()
    page.reload()
    expect(page.get_by_text("replay by local").first).to_be_visible()
    context.close()


@pytest.mark.parametrize("width", [360, 1024, 1280])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/events", "/failures", "/failures/1", "/refusals", "/alerts", "/live"),
        "/processors",
        "/processors/whims",
        *("/retention", "/erasures", "/audit-log", "/entities/conversation/7"),
        "/docs/begin_bulk_action",
    ],
)
def test_no_page_is_wider_than_the_screen(
    page: Page, stack: Stack, broken: None, path: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 780})
    page.goto(path)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    screenshot(page, f"{path.strip('/') or 'overview'}-{width}")
