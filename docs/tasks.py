# ruff: noqa: E501 - a row of a table is one line
"""Writes docs/tasks.md from what the browser tests counted (docs/tasks.json): `python3 docs/tasks.py`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
COUNTS = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, slots=True)
class Anchor:
    """The product that needs the fewest clicks, as far as public documents show."""

    name: str
    steps: str
    source: str = ""
    clicks: int | None = None
    """None: not documented."""
    is_least: bool = False
    """Whether its documents show that many, and leave out further ones."""

    @property
    def words(self) -> str:
        """Return its number of clicks, in words."""
        if self.clicks is None:
            return "not documented"
        return f"at least {self.clicks}" if self.is_least else str(self.clicks)


_STRIPE_SEARCH = "https://docs.stripe.com/dashboard/search"
ANCHORS: Mapping[str, Anchor] = {
    "everything about one order": Anchor(
        "Stripe", "the search field, a result below it", _STRIPE_SEARCH, 2
    ),
    "why did it fail": Anchor(
        "Sentry",
        "the issue in its list of issues",
        "https://docs.sentry.io/product/issues/issue-details/error-issues/",
        1,
    ),
    "replay one error after the mend and cancel half way": Anchor(
        "Trigger.dev",
        "Bulk action, the filter and its value, Replay, the confirmation; then the way to abort it",
        "https://www.trigger.dev/docs/bulk-actions.md",
        5,
        is_least=True,
    ),
    "pause and resume": Anchor(
        "Oban Web 2.11",
        "Queues, the queue's box, Pause, Resume",
        "https://hex.pm/packages/oban_web/2.11.7/files/lib/oban/web/pages/queues_page.ex",
        4,
    ),
    "rotate a key": Anchor(
        "Trigger.dev",
        "the endpoint, Rotate signing secret, the confirmation with the old one's time",
        "https://trigger.dev/docs/webhooks/signing-secrets.md",
        3,
        is_least=True,
    ),
    "erase a customer": Anchor(
        "Segment",
        "Settings, End User Privacy, Suppressed Users, Suppress New User, Request Suppression; nothing shows what would go",
        "https://github.com/segmentio/segment-docs/blob/master/src/privacy/user-deletion-and-suppression.md",
        5,
    ),
    "are we behind and since when": Anchor(
        "-", "none of the documents that were read tells since when"
    ),
    "why does the sender see 401": Anchor(
        "HookBridge",
        "Messages, the inbound direction",
        "https://docs.hookbridge.io/guides/inbound/rejections",
        2,
    ),
    "yesterday's conflicts": Anchor(
        "-", "none of the documents that were read knows an id with two bodies"
    ),
    "one customer in time order": Anchor(
        "Stripe", "the search field, a result below it", _STRIPE_SEARCH, 2
    ),
    "process what was unhandled": Anchor(
        "Hookdeck",
        "a retried request makes no event for a connection that is newer",
        "https://hookdeck.com/docs/requests",
    ),
    "be told of dead letters": Anchor(
        "Sentry",
        "Monitors, Alerts, Create Alert; then a form",
        "https://docs.sentry.io/product/alerts/",
        3,
        is_least=True,
    ),
    "export failures": Anchor(
        "Stripe",
        "Payments, Export, Export in the form; then the filter",
        "https://support.stripe.com/questions/exporting-payment-reports",
        3,
        is_least=True,
    ),
    "change and resend": Anchor(
        "Trigger.dev",
        "the run, Replay, Replay in the form; the run is found before",
        "https://trigger.dev/docs/replaying.md",
        3,
        is_least=True,
    ),
    "share this view": Anchor(
        "-", "the address bar of the browser, wherever the address is the view"
    ),
}
"""In the order of the page. Read in November 2026."""

_REMARKS = {
    "rotate a key": "The new secret is written into the file that holds the secrets, which is no part of the console ([Operating](operating.md#rotating-a-key)). The page of sources shows when both are live, who uses which, and that the old one is gone.",
    "be told of dead letters": "The channel stands in a file ([Alerts](alerts.md)); the page tries it.",
    "change and resend": "One of the four clicks finds the event.",
    "erase a customer": "The number is typed twice; between the two it is shown what was found.",
}

_HEAD = """# Fifteen tasks

How much it takes to do what operators do, beginning at the overview. A test does each task twice, in a
browser against all processes: with the mouse, and with the keyboard alone (`python3 dev.py browser tests/browser/tasks`).
It looks at the outcome in the database or on the page, and compares the counts with this page.

The page counts, by what the browser tells it. A press of the mouse's button is a *click*. A *key* is a key, also with
Shift or Ctrl. What is typed into one field in one go is a *text*, however long it is; Enter at its end is a key.
Scrolling costs nothing.

| task | mouse | keyboard alone | best anchor | its clicks |
| --- | --- | --- | --- | --- |
"""
_ABOUT_ANCHORS = """
The anchor is the product that needs the fewest clicks, as far as its public documents or its source show them; they were read, and the products
were not tried. "At least": the document leaves further steps out. Its clicks begin at its own first page.

"""


def page() -> str:
    """Return the page."""
    counts = json.loads(COUNTS.read_text())
    rows = "".join(_row(task, counts[task], anchor) for task, anchor in ANCHORS.items())
    remarks = "".join(f"- {task.capitalize()}: {text}\n" for task, text in _REMARKS.items())
    return _HEAD + rows + _ABOUT_ANCHORS + remarks


def _row(task: str, counts: Mapping[str, Mapping[str, int]], anchor: Anchor) -> str:
    name = f"[{anchor.name}]({anchor.source})" if anchor.source else anchor.name
    cells = (
        task,
        _spelled(counts["mouse"]),
        _spelled(counts["keyboard"]),
        f"{name}: {anchor.steps}" if anchor.source else anchor.steps,
        anchor.words,
    )
    return f"| {' | '.join(cells)} |\n"


def _spelled(count: Mapping[str, int]) -> str:
    """Return a count in words: `2 clicks, 1 text, 1 key`."""
    words = {"clicks": "click", "texts": "text", "keys": "key"}
    parts = [
        f"{count[name]} {word}{'' if count[name] == 1 else 's'}"
        for name, word in words.items()
        if count[name]
    ]
    return ", ".join(parts) or "nothing"


if __name__ == "__main__":
    PAGE.write_text(page())
