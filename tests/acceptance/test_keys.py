"""A key is rotated while requests come: no restart, and it is seen who still uses which."""

import json
from collections.abc import Callable
from typing import Any

from ingest.console.auth.credentials import digest
from tests.acceptance.harness import Answer, Stack, request
from tests.support.deliver import order
from tests.support.signing import signed_headers
from tests.support.waiting import until

OLD, NEW = "whsec_the_old_one_0123456789", "whsec_the_new_one_0123456789"


def send(stack: Stack, number: int, secret: str) -> Answer:
    body = order(number)
    headers = signed_headers(body, secret=secret)
    return request(stack.ports[0], "POST", "/webhooks/awalchat", body, headers)


def source(stack: Stack) -> dict[str, Any]:
    listed = map(json.loads, stack.command("sources", "--json").splitlines())
    return next(row for row in listed if row["source"] == "awalchat")


def test_a_key_is_rotated_without_a_restart(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    file = stack.folder / "secrets"
    file.write_text(OLD)
    del stack.environment["INGEST_AWALCHAT_SECRETS"]
    stack.environment["INGEST_AWALCHAT_SECRETS_FILE"] = str(file)
    stack.receiver()
    assert (send(stack, 1, OLD).status, send(stack, 2, NEW).status) == (200, 401)

    file.write_text(f"{NEW}\n{OLD}\n")
    until(lambda: send(stack, 3, NEW).status == 200, what="the new key is known")
    assert send(stack, 4, OLD).status == 200
    new_key, old_key = source(stack)["keys"]

    file.write_text(NEW)
    until(lambda: send(stack, 7, OLD).status == 401, what="the old key is retired")
    assert send(stack, 8, NEW).status == 200

    counted = "SELECT sum(count) FROM activity WHERE what = 'key'"
    stored = stack.value("SELECT count(*) FROM deliveries")
    until(lambda: stack.value(counted) == stored, what="the uses are counted")
    uses = {use["key_id"]: use["day"]["deliveries"] for use in source(stack)["key_use"]}
    assert uses.keys() == {new_key, old_key}
    assert sum(uses.values()) == stored
    printed = stack.command("sources")
    assert f"awalchat\t{old_key}\t" in printed
    assert "retired" in printed
    assert OLD not in stack.logs() + printed
    assert NEW not in stack.logs() + printed


def test_tokens_of_the_console_are_replaced_without_a_restart(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    file = stack.folder / "tokens"
    file.write_text(f"deploy:viewer:{digest('the old token')}")
    stack.console(console_tokens_file=str(file))

    def status(token: str) -> int:
        return stack.ask("/sources", authorization=f"Bearer {token}").status

    assert (status("the old token"), status("the new token")) == (200, 401)
    file.write_text(f"deploy:viewer:{digest('the new token')}")
    until(lambda: status("the new token") == 200, what="the new token is known")
    assert status("the old token") == 401
    page = stack.ask("/sources", authorization="Bearer the new token").body.decode()
    (key,) = source(stack)["keys"]
    assert f">{key}</a>" in page
    assert "/webhooks/awalchat" in page
