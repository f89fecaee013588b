"""Somebody logs in with a real OpenID provider, acts, and logs out, in a real browser."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ingest.console.auth.passwords import hash_password
from tests.acceptance.harness import Stack
from tests.conftest import Servers, cloned
from tests.support import oidc
from tests.support.oidc import running_provider
from tests.support.ports import free_port
from tests.support.redis_client import connect


@pytest.fixture
def stack(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A receiver, and a console that knows a user and a provider, which does not run yet."""
    with connect(servers.redis_url) as client:
        client.flushall()
    with cloned(servers, template) as url:
        stack = Stack(
            url,
            servers.redis_url,
            tmp_path_factory.mktemp("oidc"),
            console_users=f"omar:operator:{hash_password('the desert is wide')}",
        )
        try:
            stack.receiver()
            yield stack
        finally:
            stack.close()


def test_somebody_logs_in_with_the_provider_acts_and_logs_out(
    browser: Browser, stack: Stack
) -> None:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    stack.console(**oidc.settings(issuer))
    origin = f"http://127.0.0.1:{stack.console_port}"
    page = browser.new_context(base_url=origin).new_page()
    page.goto("/audit-log")
    page.get_by_role("link", name="Log in with Example ID").click()
    expect(page.get_by_role("alert")).to_have_text(
        "Example ID does not answer: try again in a while."
    )
    expect(page.get_by_label("Password")).to_be_visible()
    with running_provider(port, origin):
        page.get_by_role("link", name="Log in with Example ID").click()
        log_in_there(page, "amal-1")
        page.wait_for_url(f"{origin}/audit-log")
        expect(page.locator(".who")).to_have_text("Amal Haddad")
        expect(page.locator(".who")).to_have_attribute("title", "Role: operator, by oidc")
        page.goto("/")
        with page.expect_navigation():
            page.get_by_role("button", name="Send a test event").click()
        page.goto("/audit-log")
        row = page.get_by_role("row").filter(has_text="test event")
        expect(row.get_by_role("cell").nth(1)).to_have_text("Amal Haddad by OIDC")
        assert stack.value("SELECT via || ', ' || subject FROM actions") == (
            f"oidc, amal-1 at {issuer}"
        )
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("status").first).to_contain_text("You are logged out here.")
        assert not Axe().run(page).response["violations"]
        page.get_by_role("link", name="log out there too").click()
        page.wait_for_url(f"{issuer}/session/end?**")
        page.goto("/events")
        page.wait_for_url(f"{origin}/login?next=/events")
    page.context.close()


def log_in_there(page: Page, subject: str) -> None:
    """Fill in the provider's forms."""
    page.get_by_placeholder("Enter any login").fill(subject)
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
