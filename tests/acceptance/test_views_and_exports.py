"""Saved views and exports by the API and the command line: both say the same thing."""

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ingest.console.auth.credentials import digest
from tests.acceptance.harness import Stack
from tests.support.rows import execute
from tests.support.waiting import until

OPERATOR, VIEWER = "token_of_the_operator", "token_of_the_viewer"
AS_OPERATOR = {"authorization": f"Bearer {OPERATOR}"}
AS_VIEWER = {"authorization": f"Bearer {VIEWER}"}
MANY = 30_000
# A millisecond apart, up to now, by ids as a receiver makes them. Enough that no export of them all
# is over before its reader is gone.
STORED = f"""
    INSERT INTO events
    SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - {MANY} + n), 12, '0')
            || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
           'awalchat', 'sms.966512345678:' || n, 'sms.966512345678', '-', now()
    FROM generate_series(1, {MANY}) AS n
"""


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def last_action(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = stack.ask("/api/v1/audit-log?limit=1", **AS_OPERATOR).json["items"][0]
    return found


def test_a_view_is_one_thing_and_an_export_is_what_it_lists(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(
        read_model="false",
        console_mask_viewers="true",
        console_tokens=f"op:operator:{digest(OPERATOR)};looks:viewer:{digest(VIEWER)}",
    )
    stack.console()
    execute(stack.engine, STORED)

    q = f"id:sms.966512345678:{MANY} id:sms.966512345678:7"
    saved = stack.tell("/views", {"name": "Two", "q": q, "sort": "oldest"}, **AS_OPERATOR)
    assert saved.status == 200, saved.body
    assert stack.tell("/views", {"name": "Two", "q": ""}, **AS_OPERATOR).status == 409
    assert stack.tell("/views", {"name": "Bad", "q": "stat:x"}, **AS_OPERATOR).status == 400
    assert stack.tell("/views", {"name": "Mine", "q": ""}, **AS_VIEWER).status == 403
    assert stack.ask("/api/v1/views", **AS_VIEWER).json["items"] == []  # its search names a number
    assert "Saved." in stack.command("views", "save", "All but", "--query", "-type:order.*")
    shown = stack.ask("/api/v1/views", **AS_VIEWER).json["items"]
    assert [view["name"] for view in shown] == ["All but"]
    told = stack.command("events", "list", "--view", "Two", "--json")
    names = [f"sms.966512345678:{number}" for number in (7, MANY)]
    assert [event["event_id"] for event in lines(told)] == names

    listed = stack.ask(f"/api/v1/events?q={quote(q)}&sort=oldest", **AS_OPERATOR).json["items"]
    path = f"/api/v1/events/export?q={quote(q)}&sort=oldest"
    answer = stack.ask(path, **AS_OPERATOR)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    exported = lines(answer.body.decode())
    assert [event["id"] for event in exported] == [event["id"] for event in listed]
    assert lines(stack.command("export", "--view", "Two")) == exported
    assert last_action(stack)["reason"] == "JSON lines: 2 rows"
    page = stack.ask(f"/events/export?q={quote(q)}&sort=oldest&format=csv", **AS_OPERATOR)
    assert page.body.decode("utf-8-sig") == stack.command(
        "export", "--view", "Two", "--format", "csv"
    ).removeprefix("\N{BYTE ORDER MARK}").replace("\n", "\r\n")
    masked = lines(stack.ask(path, **AS_VIEWER).body.decode())
    assert [event["id"] for event in masked] == [event["id"] for event in exported]
    assert not any("9665123456" in event["event_id"] for event in masked)
    assert last_action(stack)["by"] == "looks"
    assert stack.ask(f"{path}&bodies=true", **AS_VIEWER).status == 400
    assert stack.ask("/events/export?q=stat:x", **AS_OPERATOR).status == 400
    assert "no view 'Gone'" in stack.command("export", "--view", "Gone", ok=False)
    assert "no filter" in stack.command("export", "--query", "stat:x", ok=False)

    gone = http.client.HTTPConnection("127.0.0.1", stack.console_port, timeout=300)
    gone.request("GET", "/api/v1/events/export", headers=AS_OPERATOR)
    assert gone.getresponse().read(100).startswith(b'{"id": ')
    gone.close()
    until(
        lambda: str(last_action(stack)["reason"]).startswith("JSON lines: cut after "),
        what="the export ends with its reader",
    )
