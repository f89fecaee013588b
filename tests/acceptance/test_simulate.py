"""A simulated shop, sent to real processes: everything arrives, whatever stands in its way."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.acceptance.harness import Stack
from tests.support.reference import read_model
from tests.support.tables import tables
from tests.support.waiting import until


def simulate(stack: Stack, *arguments: str) -> subprocess.Popen[bytes]:
    url = f"http://127.0.0.1:{stack.ports[0]}/webhooks/awalchat"
    return stack.start("simulate", "--url", url, "--seed", "5", *arguments)


def test_a_shop_arrives_whole_and_its_rows_are_the_references(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.receiver()
    stack.worker()
    stack.relay()
    journal = stack.folder / "journal.jsonl"
    sent = simulate(
        stack, "--rate", "150", "--duration", "3", "--duplicates", "0.2", "--late", "0.3",
        "--burst", "50", "--journal", str(journal),
    )  # fmt: skip
    assert sent.wait(300) == 0
    stack.wait_until_idle()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    occurrences = {line["occurrence"] for line in lines}
    assert len(lines) > len(occurrences) > 400
    assert stack.value("SELECT count(*) FROM events") == len(occurrences)
    events = stack.query("SELECT e.event_id, d.body FROM events e JOIN deliveries d ON d.id = e.id")
    expected = read_model({row["event_id"]: bytes(row["body"]) for row in events})
    with stack.engine.connect() as connection:
        assert tables(connection) == expected


def test_what_cannot_be_sent_is_sent_again_and_ctrl_c_waits_for_it(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    receiver = stack.receiver()
    port = str(stack.ports[0])
    sent = simulate(stack, "--rate", "50", "--duration", "600", "--time-factor", "60")
    until(lambda: stack.value("SELECT count(*) FROM deliveries") > 10, what="something has come")
    receiver.kill()
    receiver.wait()
    before = stack.value("SELECT count(*) FROM deliveries")
    sent.send_signal(signal.SIGINT)
    stack.start("serve", "--port", port)
    assert sent.wait(300) == 0
    assert stack.value("SELECT count(*) FROM deliveries") > before
    assert "0 given up" in stack.logs()


def test_a_second_ctrl_c_ends_it_at_once(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.ports.append(1)  # nobody listens there
    journal = stack.folder / "journal.jsonl"
    sent = simulate(
        stack, "--rate", "20", "--duration", "600", "--time-factor", "1",
        "--journal", str(journal),
    )  # fmt: skip
    until(lambda: journal.exists() and journal.stat().st_size > 0, what="it has begun")
    sent.send_signal(signal.SIGINT)
    until(lambda: b"again to end now" in _log(stack), what="it says that it waits")
    assert sent.poll() is None
    sent.send_signal(signal.SIGINT)
    assert sent.wait(300) == 130
    assert b"Traceback" not in _log(stack)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_one_sentence(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.ports.append(1)  # nobody listens there
    sent = simulate(stack, "--duration", "600", "--journal", "/dev/full")
    assert sent.wait(300) == 1
    assert b"ingest: Cannot write /dev/full: No space left on device." in _log(stack)
    assert b"Traceback" not in _log(stack)


def _log(stack: Stack) -> bytes:
    return b"".join(path.read_bytes() for path in stack.folder.glob("simulate-*.log"))


def test_what_is_wrong_is_one_sentence(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    del stack.environment["INGEST_AWALCHAT_SECRETS"]
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "simulate", "--duration", "0"],
        cwd=stack.folder,
        env=stack.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ingest: No secret to sign with")
    assert done.stderr.count("\n") == 1
