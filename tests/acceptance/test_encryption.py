"""Real processes with keys: no file holds a body's text, and commands read and change it."""

import json
import sys
from base64 import b64encode
from collections.abc import Callable

import pytest

from ingest.encryption.keys import key_id, parse
from tests.acceptance.harness import Stack
from tests.acceptance.test_erasure import _execute, _post, _settle, content_of
from tests.acceptance.up import Up
from tests.support.deliver import body, order
from tests.support.rows import execute
from tests.support.waiting import end, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="`up` reads /proc")

KEY = b64encode(bytes(range(32))).decode()
SECRET_WORD = b"nobody-else-writes-this"


def test_no_file_holds_the_text_of_a_body(
    make_up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_BODY_KEYS", KEY)  # for the commands, too
    up = make_up().wait_until_ready()
    secret = (up.folder / ".ingest" / "awalchat.secret").read_text().strip()
    raw = body("note.made", {"text": SECRET_WORD.decode()})
    _post(up, secret, raw)
    until(lambda: up.stats()["events"]["total"] == 1, what="it is an event")
    _settle(up)
    assert not holding(up)
    (event,) = up.command("events", "list", "--json").splitlines()
    shown = json.loads(up.command("events", "show", json.loads(event)["id"], "--json"))
    assert (shown["body"], shown["unreadable"]) == (raw.decode(), None)
    up.command("encryption", "run", "--decrypt", "--json")
    _execute(up, "CHECKPOINT")
    assert holding(up)  # the control: the search finds it


def test_what_a_worker_without_the_key_cannot_read_waits_for_one_that_has_it(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(max_attempts="1")
    stack.receiver(body_keys=KEY)
    assert [answer.status for answer in stack.post_all([order(n) for n in range(3)])] == [200] * 3
    keyless = stack.worker()
    given_back = "SELECT count(*) FROM attempts WHERE outcome = 'released'"
    until(lambda: stack.value(given_back) == 3, what="each job was given back")
    (job,) = stack.query("SELECT DISTINCT state, failures FROM jobs")
    assert job == {"state": "retrying", "failures": 0}
    event = str(stack.value("SELECT min(id::text) FROM events"))
    told = f"encrypted with the key {key_id(parse(KEY)[0])}, which this process has not been given"
    assert told in json.dumps(stack.show(event))
    assert "Jobs of such bodies wait for a process that has them" in stack.logs()
    assert end(keyless) == 0, stack.logs()[-3000:]
    stack.worker(body_keys=KEY)
    execute(stack.engine, "UPDATE jobs SET next_attempt_at = now()")  # the minute is over
    stack.relay()
    stack.wait_until_idle()
    assert stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == 3
    assert stack.value("SELECT count(*) FROM orders") == 3


def holding(up: Up) -> list[str]:
    """Return the files that hold the word, the write-ahead log among them."""
    files = [path for path in (up.folder / ".ingest").rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET_WORD in content_of(path)]
