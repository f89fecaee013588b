"""Every rule of AwalChat's protocol, over HTTP."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from tests.acceptance.harness import Stack, raw_exchange, request
from tests.support.deliver import body, order
from tests.support.signing import signed_headers
from tests.support.vectors import VECTORS, Vector
from tests.support.waiting import until

MIB = 1024 * 1024


def stored(stack: Stack) -> int:
    count: int = stack.value("SELECT count(*) FROM deliveries")
    return count


def resigned(vector: Vector) -> dict[str, str]:
    """The vector's headers, with a fresh signature where the point is another than the
    signature."""
    if vector.status != 401 and vector.headers:
        return signed_headers(vector.body)
    return dict(vector.headers)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_every_vector_gets_its_status(receiving: Stack, vector: Vector) -> None:
    head = b"".join(
        name.encode()
        + b": "
        + (value.encode("latin-1") if value.isascii() else value.encode())
        + b"\r\n"
        for name, value in (
            list(vector.headers) if vector.status == 401 else resigned(vector).items()
        )
    )
    before = stored(receiving)
    answered = raw_exchange(
        receiving.ports[0],
        b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: "
        + str(len(vector.body)).encode()
        + b"\r\n"
        + head
        + b"\r\n"
        + vector.body,
    )
    assert answered.split()[1].decode() == str(vector.status)
    answer = json.loads(answered.partition(b"\r\n\r\n")[2])
    is_handshake = "handshake" in vector.name
    if vector.status == 200 and is_handshake:
        assert answer == {"challenge": json.loads(vector.body)["challenge"]}
    elif vector.status == 200:
        assert answer == {"received": True}
    else:
        assert set(answer) == {"error", "message", "request_id"}
    keeps = vector.status in (200, 400) and not is_handshake
    assert stored(receiving) - before == int(keeps)


def test_an_event_is_answered_with_the_id_that_its_delivery_has(receiving: Stack) -> None:
    answer = receiving.post(order(1001))
    assert (answer.status, answer.json) == (200, {"received": True})
    assert answer.headers["content-type"] == "application/json"
    (row,) = receiving.query(
        "SELECT * FROM deliveries WHERE id = :id", id=UUID(answer.headers["x-request-id"])
    )
    assert bytes(row["body"]) == order(1001)
    names = [name for name, _ in row["headers"]]
    assert names == ["content-type", "x-awal-webhook-timestamp", "x-awal-webhook-signature"]


def test_a_signed_request_that_is_no_event_is_kept_with_its_reason(receiving: Stack) -> None:
    answer = receiving.post(b'{"event": 7, "data": {}}')
    assert answer.status == 400
    assert answer.json["error"] == "event_not_string"
    (row,) = receiving.query(
        "SELECT * FROM deliveries WHERE id = :id", id=UUID(answer.json["request_id"])
    )
    assert row["rejected"] == "event_not_string"


def test_an_unsigned_request_is_not_kept(receiving: Stack) -> None:
    before = stored(receiving)
    answer = request(receiving.ports[0], "POST", "/webhooks/awalchat", order(1))
    assert answer.status == 401
    assert stored(receiving) == before


def test_credentials_that_a_proxy_added_are_not_stored(receiving: Stack) -> None:
    answer = receiving.post(order(1002), Authorization="Bearer x", Cookie="session=x")
    headers = receiving.value(
        "SELECT headers::text FROM deliveries WHERE id = :id",
        id=UUID(answer.headers["x-request-id"]),
    )
    assert "Bearer" not in headers
    assert "session" not in headers


def test_a_body_at_the_limit_passes_and_one_byte_more_is_413(receiving: Stack) -> None:
    def of_size(size: int) -> bytes:
        empty = body("note.added", {"text": ""})
        return body("note.added", {"text": "x" * (size - len(empty))})

    assert receiving.post(of_size(MIB)).status == 200
    answer = receiving.post(of_size(MIB + 1))
    assert (answer.status, answer.json["error"]) == (413, "body_too_large")


def test_a_sender_of_several_mebibytes_gets_to_see_its_413(receiving: Stack) -> None:
    """Although it goes on writing while it is answered: closing would reset the connection."""
    for _ in range(10):
        answer = receiving.post(b"x" * (2 * MIB - 1))
        assert answer.status == 413


def test_a_sender_that_asks_first_is_told_at_once(receiving: Stack) -> None:
    answered = raw_exchange(
        receiving.ports[0],
        b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n"
        b"Expect: 100-continue\r\n\r\n",
        timeout_s=300,
    )
    assert answered.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answered


def test_a_chunked_body_over_the_limit_is_413_before_it_ends(receiving: Stack) -> None:
    with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
        client.sendall(
            b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        try:
            for _ in range(17):
                client.sendall(chunk)
        except ConnectionError:
            pass
        assert b" 413 " in client.recv(4_096)


def test_a_declared_length_over_the_limit_is_413_without_reading(receiving: Stack) -> None:
    answered = raw_exchange(
        receiving.ports[0],
        b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
        timeout_s=300,
    )
    assert b" 413 " in answered


def test_a_body_that_does_not_come_is_503_at_the_deadline(receiving: Stack) -> None:
    began = time.monotonic()
    answered = raw_exchange(
        receiving.ports[0],
        b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
    )
    assert b" 503 " in answered
    assert b"body_too_slow" in answered
    assert b"retry-after: 5" in answered  # the time may have been lost here: a 4xx would be final
    assert 0.9 < time.monotonic() - began < 300


def test_a_body_that_drips_is_503_at_the_deadline(receiving: Stack) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
        client.sendall(
            b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        )
        client.settimeout(0.1)
        answered = b""
        while not answered and time.monotonic() - began < 300:
            client.sendall(b"x")
            try:
                answered = client.recv(4_096)
            except TimeoutError:
                continue
    assert b" 503 " in answered
    assert time.monotonic() - began < 300


def test_bodies_that_are_half_there_take_a_bounded_amount_of_memory(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(max_body_bytes="1000000", max_inflight_body_bytes="1000000")
    stack.receiver()
    head = b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n"
    with contextlib.ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", stack.ports[0]), 10))
            for _ in range(3)
        ]
        for client in clients:
            client.sendall(head + b"x" * 390_000)
        answered = until(lambda: [each for each in clients if _has_answer(each)])[0].recv(4_096)
        assert b" 503 " in answered
        assert b"too_many_bodies" in answered
        assert stack.post(order(1004)).status == 200
    assert until(lambda: stack.post(order(1005, note="x" * 300_000)).status == 200)


def _has_answer(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


def test_a_sender_that_hangs_up_is_no_error(receiving: Stack) -> None:
    with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
        client.sendall(
            b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxx"
        )
    assert receiving.post(order(1003)).status == 200
    assert "request_failed" not in receiving.logs()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhooks/awalchat", 405),
        ("PUT", "/webhooks/awalchat", 405),
        ("POST", "/webhooks/nobody", 404),
        ("POST", "/webhooks/awalchat/more", 404),
        ("POST", "/webhooks/awalchat/", 404),
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
    ],
)
def test_what_is_not_there_is_said_in_the_same_form(
    receiving: Stack, method: str, path: str, status: int
) -> None:
    answer = request(receiving.ports[0], method, path)
    assert answer.status == status
    assert set(answer.json) == {"error", "message", "request_id"}


def test_several_requests_share_a_connection(receiving: Stack) -> None:
    answers = receiving.post_all([order(2_000 + n) for n in range(20)], connections=1)
    assert {answer.status for answer in answers} == {200}


def test_health_says_whether_a_delivery_could_be_stored(receiving: Stack) -> None:
    assert request(receiving.ports[0], "GET", "/health/live").status == 200
    ready = request(receiving.ports[0], "GET", "/health/ready")
    assert (ready.status, ready.json) == (200, {"database": "ok", "dispatch": "ok"})


def test_a_key_that_is_being_retired_still_passes_and_is_recorded(
    receiving: Stack,
) -> None:
    """Rotation: the new secret first, the old one still live."""
    stack = Stack(
        receiving.environment["INGEST_DATABASE_URL"],
        receiving.environment["INGEST_REDIS_URL"],
        receiving.folder,
        awalchat_secrets="whsec_the_new_one_0123456789,whsec_the_old_one_0123456789",
    )
    try:
        stack.receiver()
        keys = []
        for number, secret in enumerate(
            ("whsec_the_new_one_0123456789", "whsec_the_old_one_0123456789")
        ):
            raw = order(3_000 + number)
            answer = request(
                stack.ports[0],
                "POST",
                "/webhooks/awalchat",
                raw,
                signed_headers(raw, secret=secret),
            )
            assert answer.status == 200
            keys.append(
                stack.value(
                    "SELECT key_id FROM deliveries WHERE id = :id",
                    id=UUID(answer.headers["x-request-id"]),
                )
            )
        listed = map(json.loads, stack.command("sources", "--json").splitlines())
        assert [source["keys"] for source in listed if source["source"] == "awalchat"] == [keys]
        raw = order(3_002)
        refused = request(stack.ports[0], "POST", "/webhooks/awalchat", raw, signed_headers(raw))
        assert refused.status == 401
    finally:
        stack.close()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"INGEST_AWALCHAT_SECRETS": ""}, "INGEST_AWALCHAT_SECRETS"),
        ({"INGEST_AWALCHAT_SECRETS": "short"}, "INGEST_AWALCHAT_SECRETS"),
        ({"INGEST_DATABASE_URL": "mysql://x"}, "postgresql://"),
        ({"INGEST_DATABASE_URL": ""}, "INGEST_DATABASE_URL"),
        ({"INGEST_REDIS_URL": "amqp://x"}, "redis://"),
        ({"INGEST_MAX_BODY_BYTES": "no"}, "INGEST_MAX_BODY_BYTES"),
    ],
)
def test_a_bad_setting_stops_the_start_in_one_sentence(
    receiving: Stack, environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setitem(receiving.environment, name, value)
    printed = receiving.command("serve", "--port", "1", ok=False)
    assert said in printed
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_port_that_is_taken_stops_the_start_in_one_sentence(receiving: Stack) -> None:
    printed = receiving.command("serve", "--port", str(receiving.ports[0]), ok=False)
    assert f"Cannot listen on 127.0.0.1:{receiving.ports[0]}" in printed
    assert "Traceback" not in printed


def test_no_log_holds_a_body_a_secret_or_a_phone_number(receiving: Stack) -> None:
    """Last in its module: the logs are at their most talkative, and hold what all tests sent."""
    logs = receiving.logs()
    assert "request_refused" in logs
    for line in logs.splitlines():
        json.loads(line)
    for private in ("96650000000", "wamid.", "whsec_", "order_id", "ticket", "مرح"):
        assert private not in logs


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_to_speak_another_protocol_is_ignored(receiving: Stack, protocol: str) -> None:
    """Java's HttpClient makes it by default: a 401 would lose the event."""
    raw = order(1100)
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2-Settings": "AA"}
    answered = request(
        receiving.ports[0], "POST", "/webhooks/awalchat", raw, signed_headers(raw) | offer
    )
    assert answered.status == 200


@pytest.mark.parametrize("head", [b"a: b\r\n" * 20_000, b"a: " + b"x" * 200_000])
def test_a_head_without_end_is_hung_up_on(receiving: Stack, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\n" + head)
        assert _rest(client) == b""


def test_more_requests_than_a_pipeline_holds_are_hung_up_on(receiving: Stack) -> None:
    one = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(one * 100_000)
        answered = _rest(client)
    assert answered.count(b"HTTP/1.1 ") < 2_000
    assert b" 400 " not in answered
    with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
        client.sendall(one * 60 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert _rest(client).count(b"HTTP/1.1 200") == 61


def test_who_hangs_up_on_a_pipeline_causes_no_error(receiving: Stack) -> None:
    raw = order(1101)
    head = b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(raw)
    fields = "".join(f"{name}: {value}\r\n" for name, value in signed_headers(raw).items())
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", receiving.ports[0]), timeout=300) as client:
            client.sendall((head + fields.encode() + b"\r\n" + raw) * 20)
    assert receiving.post(order(1102)).status == 200
    assert "request_failed" not in receiving.logs()
    assert "Exception in ASGI" not in receiving.logs()


def test_what_trails_a_body_signs_nothing(receiving: Stack) -> None:
    raw = order(1103)
    trailers = "".join(f"{name}: {value}\r\n" for name, value in signed_headers(raw).items())
    answered = raw_exchange(
        receiving.ports[0],
        b"POST /webhooks/awalchat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(raw), raw, trailers.encode()),
    )
    assert b" 401 " in answered


def _rest(client: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(65_536):
            received += chunk
    return received
