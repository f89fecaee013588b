"""Debian's Chromium in front of a whole stack: receiver, worker, relay, console."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.acceptance import shop_processors
from tests.acceptance.harness import Stack
from tests.conftest import Servers, cloned
from tests.support.redis_client import connect
from tests.support.rows import execute


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; without one the tests fail in CI and are skipped elsewhere."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("There is no chromium: apt-get install chromium.")
        pytest.skip("There is no chromium: apt-get install chromium.")
    expect.set_options(timeout=300_000)  # of a condition, in ms; a busy machine takes many seconds
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def stack(
    servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Everything, with the acceptance tests' processors."""
    with connect(servers.redis_url) as client:
        client.flushall()
    with cloned(servers, template) as url:
        folder = tmp_path_factory.mktemp("browser")
        stack = Stack(url, servers.redis_url, folder, processors="shop_processors")
        try:
            shutil.copy(shop_processors.__file__, folder)
            execute(stack.engine, "CREATE TABLE effects (what text, event text, attempt integer)")
            stack.receiver()
            stack.worker()
            stack.relay()
            stack.console()
            yield stack
        finally:
            stack.close()


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A page of the console. What its scripts throw fails the test."""
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{stack.console_port}",
        viewport={"width": 1280, "height": 900},
        timezone_id="Asia/Riyadh",
        locale="en-GB",
    )
    context.set_default_timeout(300_000)
    opened = context.new_page()
    thrown: list[str] = []
    opened.on("pageerror", lambda error: thrown.append(str(error)))
    opened.on(
        "console",
        lambda said: (
            thrown.append(said.text)
            if said.type == "error" and "Content Security Policy" in said.text
            else None
        ),
    )
    yield opened
    context.close()
    assert not thrown


def screenshot(page: Page, name: str) -> None:
    """Keep what is seen, where `INGEST_SCREENSHOTS` says; for people."""
    if folder := os.environ.get("INGEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
