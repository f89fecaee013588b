"""Real processes with keys: no file holds a body's text, and commands read and change it."""

import json
import sys
from base64 import b64encode
from collections.abc import Callable

import pytest

from tests.acceptance.test_erasure import _execute, _post, _settle
from tests.acceptance.up import Up
from tests.support.deliver import body
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="`up` reads /proc")

KEY = b64encode(bytes(range(32))).decode()
SECRET_WORD = b"nobody-else-writes-this"


def test_no_file_holds_the_text_of_a_body(
    make_up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_BODY_KEYS", KEY)  # for the commands, too
    up = make_up()
    until(lambda: "ready in" in up.said, what="it is ready", timeout_s=300)
    secret = (up.folder / ".ingest" / "awalchat.secret").read_text().strip()
    raw = body("note.made", {"text": SECRET_WORD.decode()})
    _post(up, secret, raw)
    until(lambda: up.stats()["events"]["total"] == 1, what="it is an event", timeout_s=300)
    _settle(up)
    assert not holding(up)
    (event,) = up.command("events", "list", "--json").splitlines()
    shown = json.loads(up.command("events", "show", json.loads(event)["id"], "--json"))
    assert (shown["body"], shown["unreadable"]) == (raw.decode(), None)
    up.command("encryption", "run", "--decrypt", "--json")
    _execute(up, "CHECKPOINT")
    assert holding(up)  # the control: the search finds it


def holding(up: Up) -> list[str]:
    """Return the files that hold the word, the write-ahead log among them."""
    files = [path for path in (up.folder / ".ingest").rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET_WORD in path.read_bytes()]
