"""What somebody does with a page, counted by the page itself.

Listeners in the page count: what the browser was told, and not what a test meant to do. A press of
the mouse's button is a click. A key is a key, also with Shift or Ctrl. What is typed into one field
in one go is a text, however long it is; Enter at its end is a key. Scrolling, looking and moving
the mouse cost nothing.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Locator, Page, expect

COUNTS = Path(__file__).parents[3] / "docs/tasks.json"
"""By task, then by hand. `COUNT_TASKS=write` has the tests write what they count, one process at a
time (`-n 0`); `python3 dev.py docs` makes the page of it."""
Hand = Literal["mouse", "keyboard"]

_LISTENERS = """
(() => {
  const MODIFIERS = ["Shift", "Control", "Alt", "Meta"];
  const add = (name) => { sessionStorage[name] = Number(sessionStorage[name] ?? 0) + 1; };
  let typedIn = null;
  addEventListener("pointerdown", (event) => {
    if (!event.isTrusted) return;
    typedIn = null;
    add("clicks");
  }, true);
  addEventListener("keydown", (event) => {
    if (!event.isTrusted || MODIFIERS.includes(event.key)) return;
    const field = event.target.closest("textarea, input:not([type=checkbox], [type=radio])");
    const isText = event.key.length === 1 || (event.key === "Enter" && field?.matches("textarea"));
    if (!field || !isText || event.ctrlKey || event.metaKey || event.altKey) {
      typedIn = null;
      return add("keys");
    }
    if (typedIn !== field) add("texts");
    typedIn = field;
  }, true);
})();
"""


@dataclass(frozen=True, slots=True)
class Count:
    """What was done."""

    clicks: int = 0
    keys: int = 0
    texts: int = 0


class Counted:
    """A page, in front of somebody who uses the mouse, or the keyboard alone."""

    def __init__(self, page: Page, hand: Hand) -> None:
        self.page = page
        self.hand: Hand = hand
        page.add_init_script(_LISTENERS)

    def start(self) -> None:
        """Show the overview, where every task begins, and count from there."""
        self.page.goto("/")
        self.ready("Overview")
        self.page.evaluate(
            "for (const name of ['clicks', 'keys', 'texts']) delete sessionStorage[name]"
        )

    def ready(self, heading: str) -> None:
        """Wait until the page with a heading is shown and takes keys: its scripts have run."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(heading)
        self.page.wait_for_function("document.readyState === 'complete'")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def click(self, target: Locator) -> None:
        """Click what is shown."""
        target.click()

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.page.keyboard.type(text)

    def go(self, name: str, keys: str) -> None:
        """Go to a page by its link in the navigation, or by its keys."""
        if self.hand == "mouse":
            link = self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)
            self.click(link)
        else:
            self.press(*keys)
        self.ready(name)

    def act(self, target: Locator, *keys: str) -> None:
        """Press a button or follow a link that is shown: click it, or press its keys."""
        expect(target).to_be_visible()
        if self.hand == "mouse":
            self.click(target)
        else:
            self.press(*keys)

    def search(self, text: str) -> None:
        """Search from the overview."""
        self.act(self.page.get_by_role("combobox", name="Search events"), "/")
        expect(self.page.locator("[data-search]")).to_be_focused()
        self.type(text)
        self.press("Enter")
        self.page.wait_for_url(lambda url: "/events" in url)
        self.ready("Events")

    @property
    def count(self) -> Count:
        """What was done since the start."""
        counted = self.page.evaluate("({...sessionStorage})")
        return Count(*(int(counted.get(name, 0)) for name in ("clicks", "keys", "texts")))


def check(task: str, hand: Hand, count: Count) -> None:
    """Compare what a task took with what is documented, or write it there."""
    documented = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    if os.environ.get("COUNT_TASKS") == "write":
        documented.setdefault(task, {})[hand] = asdict(count)
        COUNTS.write_text(json.dumps(documented, indent=1, sort_keys=True) + "\n")
        return
    assert asdict(count) == documented[task][hand], "run it with COUNT_TASKS=write"
    if hand == "keyboard":
        assert not count.clicks
