"""The pages of the console, and a camera that takes pictures of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page

NARROW = (390, 844)
_WIDE = (1280, 800)
_WIDTHS = (1440, 1024, 390)
PASSWORD = "the desert is wide"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A console with a day behind it, and where its pages are."""

    origin: str
    dead: str
    conflict: str
    rejected: str


def at(path: str) -> Callable[[Page, Shown], object]:
    return lambda page, shown: page.goto(f"{shown.origin}{path}")


def preview(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/failures")
    row = page.get_by_role("row").filter(has_text="crm")
    row.get_by_role("button", name="Replay all of these").click()
    page.get_by_role("heading", name="This will replay").wait_for()


def conflict(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events/{shown.conflict}")
    page.locator("#body-title").evaluate("title => title.scrollIntoView()")


PAGES: dict[str, Callable[[Page, Shown], object]] = {
    "overview": at("/?range=day"),
    "events": at("/events"),
    "events-search": at("/events?q=type:order.*+state:dead+since:24h"),
    "event": lambda page, shown: page.goto(f"{shown.origin}/events/{shown.dead}"),
    "event-conflict": conflict,
    "delivery": lambda page, shown: page.goto(f"{shown.origin}/deliveries/{shown.rejected}"),
    "failures": at("/failures"),
    "refused": at("/refusals"),
    "live": at("/live"),
    "bulk-action": at("/bulk-actions/3"),
    "alerts": at("/alerts"),
    "retention": at("/retention"),
    "erasures": at("/erasures"),
    "erasure": at("/erasures/2"),
    "preview": preview,
}


def offered(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events?q=55120417")
    chips = page.get_by_role("navigation", name="Pages that the search may mean")
    chips.get_by_role("link", name="Order 55120417", exact=True).click()


def failed(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/failures")
    page.locator("#groups a.row-link").first.click()


def edited(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events/{shown.dead}/edit")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("heading", name="What it would become").wait_for()


def exported(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events?q=state:dead")
    page.get_by_text("Export", exact=True).click()


def helped(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.origin}/events?q=state:lost+%22أين%22")
    page.get_by_text("What can be searched").click()


FURTHER_PAGES: dict[str, Callable[[Page, Shown], object]] = {
    "overview-by-processor": at("/?range=day&by=processor"),
    "events-order": at("/events?q=55120417"),
    "events-export": exported,
    "events-help": helped,
    "events-messages": at("/events?q=type:message.received"),
    "order": offered,
    "edit": edited,
    "failure": failed,
    "processor": at("/processors/crm?range=day"),
    "rejected": at("/refusals?kind=rejected&range=day"),
    "processors": at("/processors"),
    "sources": at("/sources"),
    "audit-log": at("/audit-log"),
    "api": at("/docs"),
    "api-operation": at("/docs/begin_bulk_action"),
    "nowhere": at("/nowhere"),
}
"""Those that docs/ does not show."""


@dataclass(frozen=True)
class Camera:
    """Takes pictures, as somebody in Riyadh sees the pages."""

    browser: Browser
    shown: Shown
    folder: Path
    scheme: str

    def take(
        self,
        name: str,
        reach: Callable[[Page, Shown], object],
        *,
        viewport: tuple[int, int] = _WIDE,
        logged_in: bool = True,
    ) -> None:
        """One page."""
        context = self._context(viewport)
        page = self._log_in(context) if logged_in else context.new_page()
        reach(page, self.shown)
        page.locator("main").wait_for()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=self.folder / f"{name}.png")
        context.close()

    def _context(self, viewport: tuple[int, int]) -> BrowserContext:
        return self.browser.new_context(
            viewport={"width": viewport[0], "height": viewport[1]},
            color_scheme="dark" if self.scheme == "dark" else "light",
            reduced_motion="reduce",
            timezone_id="Asia/Riyadh",
            locale="en-GB",
        )

    def _log_in(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.goto(f"{self.shown.origin}/login")
        page.get_by_label("Name").fill("noura")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{self.shown.origin}/")
        return page

    def take_in_all_widths(self, name: str, reach: Callable[[Page, Shown], object]) -> None:
        """One page, whole, in every width."""
        context = self._context((_WIDTHS[0], 900))
        page = self._log_in(context)
        reach(page, self.shown)
        page.locator("main").wait_for()
        page.evaluate("document.activeElement.blur()")
        page.evaluate("scrollTo(0, 0)")
        page.locator("footer").evaluate("foot => { foot.style.position = 'static'; }")
        for width in _WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            file = self.folder / f"{name}-{width}-{self.scheme}.png"
            page.screenshot(path=file, full_page=True)
        context.close()
