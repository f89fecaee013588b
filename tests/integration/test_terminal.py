"""What commands print in a terminal of 80 columns, and what they say of unknown names."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingest.cli import main, output
from tests.support.deliver import body, deliver
from tests.support.rows import execute
from tests.support.signing import SECRET

Run = Callable[..., str]
ARABIC = "السلام عليكم، أحتاج مساعدة في الطلب من فضلك، لم يصل حتى الآن ورقم التتبع لا يعمل"
LONG_ERROR = "crm.shop.example refused the connection " * 4


@pytest.fixture
def run(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command, in a terminal of 80 columns or into a pipe; returns what it prints, and the
    sentence that it ends with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", SECRET)
    monkeypatch.setenv("INGEST_DATABASE_URL", database_url)
    monkeypatch.setenv("INGEST_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("COLUMNS", "80")

    def printed(*command: str, terminal: bool = True) -> str:
        monkeypatch.setattr(output, "is_terminal", lambda: terminal)
        monkeypatch.setattr(sys, "argv", ["ingest", *command])
        with pytest.raises(SystemExit) as ended:
            main.main()
        told = capsys.readouterr()
        sentence = ended.value.code if isinstance(ended.value.code, str) else ""
        return told.out + told.err + sentence

    return printed


@pytest.fixture
def stored(engine: Engine, database_url: str) -> list[str]:
    """An order that failed, and a message; with a processor that is registered."""
    order = body("order.created", {"order_id": 789, "note": "x" * 300})
    message = {"message_id": "wamid.1", "from": "966512345678", "body": ARABIC}
    ids = deliver(database_url, [order, body("message.received", message)])
    execute(
        engine,
        "INSERT INTO events SELECT delivery, source, event_id, type, fingerprint, received_at"
        " FROM unadmitted",
    )
    execute(
        engine,
        "INSERT INTO processors (name, types, queue, batch, threads, max_attempts, timeout_s,"
        " registered_at) VALUES ('invoices', '[\"order.*\"]', 'events', false, 1, 3, 30, now())",
    )
    execute(
        engine,
        "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
        " max_attempts, finished_at) VALUES (:id, 'invoices', 'events', 'dead', 'delivery', 1, 1,"
        " 1, now())",
        id=ids[0],
    )
    execute(
        engine,
        "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome, error_type,"
        " error_message) SELECT id, 1, 'delivery', now(), now(), 'failed', 'ConnectionError', :why"
        " FROM jobs",
        why=LONG_ERROR,
    )
    return [str(each) for each in ids]


def test_a_list_and_an_event_are_no_wider_than_the_terminal(run: Run, stored: list[str]) -> None:
    order, message = stored
    said = run("events", "list")
    lines = said.splitlines()
    assert re.match(r"unhandled  \d+ s ", lines[0])
    assert re.match(r"dead       \d+ s ", lines[2])
    assert [line[:15] for line in lines[1::2]] == [f"  {message[:13]}", f"  {order[:13]}"]
    assert "Message from …678: السلام" in said
    assert "Order 789 created" in said
    assert f"  {order}  order 789  order.created:789" in said
    shown = run("events", "show", order)
    assert shown.startswith("Order 789 created\n")
    assert "ConnectionError: crm.shop.example" in shown
    assert max(map(len, (said + shown).splitlines())) == 80


def test_what_programs_read_stays_as_it_was_but_for_a_title(run: Run, stored: list[str]) -> None:
    order, _ = stored
    lines = run("events", "list", terminal=False).splitlines()
    assert lines[1].split("\t")[:3] == [order, "order.created:789", "dead"]
    assert len(lines[1].split("\t")) == 5
    documents = map(json.loads, run("events", "list", "--json", terminal=False).splitlines())
    assert [each["title"] for each in documents][1] == "Order 789 created"
    assert json.loads(run("events", "show", order, "--json"))["title"] == "Order 789 created"
    piped = run("events", "show", order, terminal=False)
    assert "\tConnectionError: crm" in piped


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ["replay", "--processor", "invoice"],
            "There is no processor invoice: did you mean invoices?",
        ),
        (["replay", "--processor", "no.such"], "There is no processor no.such; there is invoices."),
        (["replay", "--type", "ordr.*"], "There is no type ordr.*: did you mean order.*?"),
        (
            ["replay", "--type", "message.recieved"],
            "There is no type message.recieved: did you mean message.received?",
        ),
        (
            ["replay", "--type", "zzz"],
            "There is no type zzz; there is message.received, order.created.",
        ),
    ],
)
def test_a_name_that_there_is_not_is_told_with_what_there_is(
    run: Run, stored: list[str], command: list[str], sentence: str
) -> None:
    assert run(*command) == f"ingest: {sentence}"
    assert "1 job" in run("replay", "--processor", "invoices", "--type", "order.*", "--dry-run")
    assert "0 jobs" in run("replay", "--type", "*966512345678*", "--dry-run")


def test_a_type_that_resembles_a_documented_one_is_sent_with_a_hint(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sources.toml").write_text('[paid]\npreset = "stripe"\n')
    monkeypatch.setenv("INGEST_SOURCES", "sources.toml")
    monkeypatch.setenv("INGEST_PAID_SECRETS", SECRET)
    said = run("send", "order.creatd", "--url", "http://127.0.0.1:1/webhooks/awalchat")
    assert "did you mean order.created? It is sent with an id" in said
    assert "Nothing answers" in said
    said = run("send", "customer.create", "--source", "paid")
    assert said == "ingest: There is no sample of customer.create: did you mean customer.created?"
