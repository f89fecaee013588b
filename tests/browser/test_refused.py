"""A sender with a wrong secret: from the overview to the likely cause."""

from playwright.sync_api import Page, expect

from tests.acceptance.harness import Stack, request
from tests.browser.conftest import screenshot
from tests.support.deliver import order
from tests.support.signing import signed_headers
from tests.support.waiting import until


def test_why_a_sender_sees_401_is_one_click_from_the_overview(page: Page, stack: Stack) -> None:
    assert stack.post(order(1)).status == 200
    wrong = order(2)
    headers = signed_headers(wrong, secret="not_the_secret_of_this_source")
    answers = [
        request(stack.ports[0], "POST", "/webhooks/awalchat", wrong, headers) for _ in range(3)
    ]
    assert {answer.status for answer in answers} == {401}
    until(
        lambda: stack.value("SELECT coalesce(sum(count), 0) FROM refusal_counts") == 3,
        what="the receiver has reported",
    )
    until(lambda: stack.ask("/api/v1/overview").json["refused"] == 3, what="the overview knows")
    page.goto("/")
    page.get_by_role("link", name="Refused 3").click()
    why = page.get_by_role("region", name="Why").get_by_role("listitem").first
    expect(why).to_contain_text("The signature does not match.")
    expect(why).to_contain_text("another secret")
    expect(why).to_contain_text("Compare the sender's secret with INGEST_AWALCHAT_SECRETS")
    why.get_by_text("step by step").click()
    expect(why.get_by_role("list", name="Why it was refused")).to_contain_text("to blame")
    screenshot(page, "refused")
    page.get_by_label("Text").fill(answers[-1].json["request_id"])
    page.get_by_role("button", name="Filter").click()
    one = page.get_by_role("region", name="The request")
    expect(one).to_contain_text("It was refused so:")
    page.get_by_role("link", name="127.0.0.1").first.click()
    expect(page.get_by_label("Address")).to_have_value("127.0.0.1")
