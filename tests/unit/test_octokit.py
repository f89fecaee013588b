"""GitHub's own library signs, and the description verifies; and the other way round.

It is a library for Node.js, in `tests/octokit`: `npm ci --prefix tests/octokit` installs it.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.setups import installed
from tests.unit.test_sender_libraries import accepts, described

OCTOKIT = Path(__file__).parents[1] / "octokit"
SECRET, OTHER = "It's a Secret to Everybody", "It's a Secret to Nobody at all"
BODIES = (
    '{"action":"opened","issue":{"number":1,"title":"\u00e9\U0001f339"}}',
    '{ "zen": "Responsive is better than fast.",\r\n "n": 1.50 }',
    "payload=%7B%22action%22%3A%22opened%22%7D",
)
TIMEOUT_S = 60
"""Node.js answers within half a second."""


@pytest.fixture(scope="module")
def node() -> Path:
    found = shutil.which("node")
    program = installed(Path(found) if found else None, "Node.js")
    installed(OCTOKIT / "node_modules/@octokit/webhooks", "@octokit/webhooks")
    return program


def asked(node: Path, *requests: dict[str, str]) -> list[Any]:
    """What the library answers to each request."""
    done = subprocess.run(
        [node, OCTOKIT / "webhooks.js"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_octokit_signs_is_accepted_and_what_is_changed_is_not(node: Path) -> None:
    signatures = asked(node, *({"secret": SECRET, "body": body} for body in BODIES))
    for body, signature in zip(BODIES, signatures, strict=True):
        headers = {"x-hub-signature-256": signature}
        assert accepts(described("github", SECRET), headers, body.encode())
        assert accepts(described("github", OTHER, SECRET), headers, body.encode())
        assert not accepts(described("github", OTHER), headers, body.encode())
        assert not accepts(described("github", SECRET), headers, body.encode() + b" ")


def test_what_is_signed_here_is_accepted_by_octokit(node: Path) -> None:
    source = described("github", SECRET)
    requests = [
        {
            "secret": secret,
            "body": body,
            "signature": source.sign(body.encode(), now=0)["x-hub-signature-256"],
        }
        for secret in (SECRET, OTHER)
        for body in BODIES
    ]
    assert asked(node, *requests) == [True] * len(BODIES) + [False] * len(BODIES)
