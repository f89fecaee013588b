"""A Redis that others use too: their keys are theirs, and none of them ends a worker."""

import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from ingest.local.process import Program
from tests.acceptance.harness import Stack
from tests.conftest import Running
from tests.support.deliver import order
from tests.support.ports import free_port
from tests.support.redis_client import connect
from tests.support.servers import debian
from tests.support.servers.setups import installed
from tests.support.waiting import end, until


def message(task: str, arguments: object) -> str:
    """A message as another Celery application would send it."""
    body = base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": str(uuid4())},
            "properties": {
                "delivery_tag": str(uuid4()),
                "delivery_info": {"exchange": "", "routing_key": "events"},
                "body_encoding": "base64",
            },
        }
    )


FOREIGN = (
    "plain text",
    "",
    "[]",
    "null",
    '{"body": 1}',
    "[" * 100_000,
    json.dumps({"headers": {"task": "ingest.process"}, "properties": {}}),
    message("shop.tasks.mail", [1, 2]),
    message("ingest.process", ["not", "ids"]),
    message("ingest.process", [["zz"], []]),
    message("ingest.process", [[], [2**70]]),
    message("ingest.process", [[], ["DROP TABLE"]]),
)


def hint(**headers: object) -> str:
    """A message as the dispatcher sends it, for no job at all, with headers that it never sends."""
    made = json.loads(message("ingest.process", [[], []]))
    made["headers"] |= headers
    return json.dumps(made)


ODD_HINTS = (
    hint(timelimit="x"),
    hint(timelimit=["a", "b"]),
    hint(timelimit=5),
    hint(stamps=5, stamped_headers=5),
    hint(eta="garbage", expires=[1]),
    hint(eta="2099-01-01T00:00:00+00:00"),
    hint(compression="nonsense"),
    hint(id=[1]),
    hint(retries="x", lang=5, shadow=[1], group=5),
    hint().replace('"utf-8"', "7"),
)


beside_nobody = pytest.mark.not_on(
    "external", reason="the keys of another application are there already, and watched"
)


def processed(stack: Stack) -> int:
    found: int = stack.value("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
    return found


@beside_nobody
def test_keys_of_ours_have_the_prefix_and_those_of_others_are_left_alone(
    make_stack: Callable[..., Stack], redis_url: str
) -> None:
    with connect(redis_url) as client:
        client.xadd("events", {"of": "another"})
        client.rpush("replay", "of another")
        client.set("_kombu.binding.events", "of another")
        theirs = set(client.keys("*"))
        stack = make_stack()
        stack.receiver()
        stack.worker()
        stack.relay()
        stack.post_all([order(number) for number in range(20)])
        until(lambda: processed(stack) == 20, what="all is worked on")
        ours = {key for key in client.keys("*") if key not in theirs}
        assert all(key.startswith(b"ingest:") for key in ours), ours
        assert client.xlen("events") == 1
        assert client.lrange("replay", 0, -1) == [b"of another"]


@beside_nobody
def test_two_installations_on_one_redis_do_not_see_each_other(
    make_stack: Callable[..., Stack], redis_url: str
) -> None:
    stack = make_stack(redis_prefix="hooks")
    stack.receiver()
    stack.worker()
    stack.post(order(1))
    until(lambda: processed(stack) == 1, what="the order is worked on")
    with connect(redis_url) as client:
        assert all(key.startswith(b"hooks:") for key in client.keys("*"))


def test_messages_that_are_not_ours_are_dropped_and_said_so(
    make_stack: Callable[..., Stack], redis_url: str
) -> None:
    stack = make_stack()
    with connect(redis_url) as client:
        client.rpush("ingest:events", *FOREIGN)
        stack.receiver()
        worker = stack.worker()
        stack.post(order(1))
        until(lambda: processed(stack) == 1, what="the order is worked on")
        client.lpush("ingest:events", *FOREIGN)
        stack.post(order(2))
        until(lambda: processed(stack) == 2, what="the next is worked on")
        until(lambda: not client.exists("ingest:events"), what="all is taken")
    assert worker.poll() is None
    logs = stack.logs()
    assert "foreign_message_dropped" in logs
    assert "DROP TABLE" not in logs
    assert "plain text" not in logs


def test_no_header_of_a_message_can_end_a_worker(
    make_stack: Callable[..., Stack], redis_url: str
) -> None:
    stack = make_stack()
    with connect(redis_url) as client:
        client.rpush("ingest:events", *ODD_HINTS)
        stack.receiver()
        worker = stack.worker()
        stack.post(order(1))
        until(lambda: processed(stack) == 1, what="the order is worked on")
    assert worker.poll() is None
    assert "Unrecoverable" not in stack.logs()


def test_a_text_under_the_name_of_a_binding_stops_nothing(
    make_stack: Callable[..., Stack], redis_url: str
) -> None:
    with connect(redis_url) as client:
        client.set("ingest:_kombu.binding.events", "of another")
        stack = make_stack()
        stack.receiver()
        stack.worker()
        stack.post(order(1))
        until(lambda: processed(stack) == 1, what="the order is worked on")
        assert client.get("ingest:_kombu.binding.events") == b"of another"


@pytest.mark.parametrize("queue", ["events", "replay"])
def test_a_key_that_is_no_list_stops_nothing(
    queue: str, make_stack: Callable[..., Stack], redis_url: str
) -> None:
    """What is dispatched to that queue goes through the relay's lane beside it."""
    stack = make_stack()
    with connect(redis_url) as client:
        client.xadd(f"ingest:{queue}", {"of": "another"})
        stack.receiver()
        worker = stack.worker()
        stack.relay()
        stack.post_all([order(number) for number in range(5)])
        until(lambda: processed(stack) == 5, what="all is worked on")
        assert client.xlen(f"ingest:{queue}") == 1
        client.delete(f"ingest:{queue}")
        stack.post(order(6))
        until(lambda: processed(stack) == 6, what="the next is worked on")
    assert worker.poll() is None
    assert "foreign_keys_in_redis" in stack.logs()


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (("maxmemory", "1"), ("maxmemory", "0")),
        (("min-replicas-to-write", "3"), ("min-replicas-to-write", "0")),
    ],
)
def test_a_redis_that_refuses_is_outlived(
    breaks: tuple[str, str],
    mends: tuple[str, str],
    make_stack: Callable[..., Stack],
    redis_url: str,
) -> None:
    stack = make_stack(dispatch_grace_s="0.5")
    stack.receiver()
    worker = stack.worker()
    relay = stack.relay()
    with connect(redis_url) as client:
        client.config_set(*breaks)
        try:
            assert {answer.status for answer in stack.post_all([order(1), order(2)])} == {200}
            until(lambda: "relay_waits" in stack.logs(), what="the relay notices")
        finally:
            client.config_set(*mends)
    until(lambda: processed(stack) == 2, what="all is worked on")
    assert (worker.poll(), relay.poll()) == (None, None)


def debian_redis(folder: Path, *options: str) -> Program:
    """Return Debian's Redis in a mode that the embedded one is not run in."""
    binary = str(installed(debian.find_redis(), "Redis"))
    (folder / "logs").mkdir(exist_ok=True)
    path = folder / "redis.sock"
    return Program(
        name="redis",
        command=[binary, "--unixsocket", str(path), "--dir", str(folder), "--save", "", *options],
        log=folder / "logs" / "redis.log",
        ready=lambda _pid: answers(path),
    )


def answers(path: Path) -> bool:
    """Return whether a Redis answers at a socket, by whatever."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return bool(client.recv(64))
    except OSError:
        return False


@pytest.mark.parametrize("command", ["serve", "worker", "relay"])
def test_a_cluster_is_refused_at_the_start(
    command: str, make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    ports = ("--port", str(free_port()), "--cluster-port", str(free_port()))
    with Running(debian_redis(tmp_path, *ports, "--cluster-enabled", "yes")):
        stack = make_stack()
        stack.environment["INGEST_REDIS_URL"] = f"unix://{tmp_path}/redis.sock"
        process = stack.start(command)
        assert process.wait(300) == 1
        assert "INGEST_REDIS_URL: Redis Cluster is not supported" in stack.logs()
        assert "Traceback" not in stack.logs()


def test_certificates_are_verified_by_everybody(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    port = free_port()
    certificates = debian.make_certificates(tmp_path)
    options = [
        *("--port", "0", "--tls-port", str(port), "--requirepass", "a b/c"),
        *("--tls-cert-file", str(certificates.certificate)),
        *("--tls-key-file", str(certificates.key)),
        *("--tls-ca-cert-file", str(certificates.authority), "--tls-auth-clients", "no"),
    ]
    address = f"rediss://:a%20b%2Fc@localhost:{port}/1"
    with Running(debian_redis(tmp_path, *options)):
        stack = make_stack(dispatch_grace_s="100")
        stack.environment["INGEST_REDIS_URL"] = f"{address}?ssl_ca_certs={certificates.authority}"
        stack.receiver()
        worker = stack.worker()
        stack.post(order(1))
        until(lambda: processed(stack) == 1, what="the order is worked on")
        end(worker)
        suspicious = make_stack(dispatch_grace_s="0.1")
        suspicious.environment["INGEST_REDIS_URL"] = address
        suspicious.receiver()
        suspicious.start("worker")
        suspicious.relay()
        suspicious.post(order(2))
        until(
            lambda: "relay_waits" in suspicious.logs() and "Cannot connect" in suspicious.logs(),
            what="both refuse the certificate",
            timeout_s=300,
        )
        assert processed(suspicious) == 1
        assert "a b/c" not in suspicious.logs()
        assert "a%20b" not in suspicious.logs()
