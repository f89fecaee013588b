"""docker-compose.yml, up: what it promises of the pipeline, and of its confinement."""

import itertools
import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.container.engine import PASSWORD, ROOT, STAND_INS, Engine, Project, check_confinement
from tests.support.vectors import DOCUMENTED
from tests.support.waiting import until

SERVICES = ("postgres", "redis", "receiver", "worker", "relay", "console")
OURS = ("receiver_1", "worker_1", "worker_2", "worker_3", "relay_1", "console_1")
NOT_DONE = "SELECT count(*) FROM ingest.jobs WHERE state <> 'succeeded'"


def order(number: int) -> bytes:
    data = {"order_id": number, "status": "pending", "total": "10.00", "currency": "SAR"}
    event = {"event": "order.created", "timestamp": "2026-01-20T10:30:00Z", "data": data}
    return json.dumps(event).encode()


def is_processed(project: Project, orders: int) -> bool:
    stored = project.query("SELECT count(*) FROM ingest.orders WHERE order_id >= 1000000")
    return int(stored) == orders and project.query(NOT_DONE) == "0"


@contextmanager
def traffic(project: Project, numbers: Iterator[int], acknowledged: list[int]) -> Iterator[None]:
    """Send orders one after another, each until it is answered 200."""
    stop = threading.Event()

    def send() -> None:
        for number in numbers:
            while not project.post(order(number)):
                if stop.wait(0.1):
                    return
            acknowledged.append(number)
            if stop.is_set():
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def test_the_image_holds_the_locked_packages_and_nothing_that_installs_others(
    engine: Engine,
) -> None:
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    )
    run = ["run", "--rm", "--entrypoint", "python", "localhost/webhook-ingest", "-I", "-c"]
    installed = json.loads(engine.run(*run, script))
    lines = (ROOT / "requirements-runtime.lock").read_text().splitlines()
    locked = dict(
        line.split(" ")[0].lower().split("==") for line in lines if line and line[0].isalnum()
    )
    normal = {
        name.replace("_", "-").replace(".", "-"): version for name, version in installed.items()
    }
    assert normal.items() <= locked.items()
    assert set(locked) - set(normal) <= {"colorama", "tzdata", "pip", "setuptools", "winloop"}
    assert "pip" not in normal


def test_the_layers_of_ours_are_small(engine: Engine) -> None:
    def size(image: str) -> int:
        return int(engine.run("image", "inspect", "--format", "{{.Size}}", image))

    base = size(f"docker.io/library/{STAND_INS['python']}")
    assert size("localhost/webhook-ingest") - base <= 110_000_000


def test_the_list_of_packages_is_of_what_the_lock_pins() -> None:
    tool = str(Path(sys.executable).with_name("cyclonedx-py"))
    command = [tool, "requirements", "requirements-runtime.lock"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    listed = json.loads(made.stdout)["components"]
    lines = (ROOT / "requirements-runtime.lock").read_text().splitlines()
    pins = {line.split(" ")[0] for line in lines if line and line[0].isalnum()}
    assert {f"{package['name']}=={package['version']}" for package in listed} == pins


def test_the_client_reads_the_profile_for_monitoring(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    client = str(Path(sys.executable).with_name("podman-compose"))
    command = [client, "--profile", "monitoring", "config", "--services"]
    read = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {"prometheus", "grafana"} <= set(read.stdout.split())


def test_each_process_passes_its_own_health_check(project: Project) -> None:
    def passes(service: str) -> bool:
        out = project.engine.run("healthcheck", "run", f"trial_{service}_1", check=False)
        return "unhealthy" not in out and service in " ".join(project.names())

    for service in SERVICES:
        until(lambda service=service: passes(service), what=service)  # type: ignore[misc]


@pytest.mark.parametrize("container", OURS)
def test_a_process_is_confined(project: Project, container: str) -> None:
    check_confinement(project.engine, f"{project.name}_{container}")


def test_the_pipelines_role_is_no_superuser_and_redis_wants_its_password(project: Project) -> None:
    roles = project.query("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = 'ingest'")
    assert roles == "f|f"
    assert "NOAUTH" in project.execute("redis_1", "redis-cli", "ping")


def test_the_documented_events_are_processed(project: Project) -> None:
    for body in DOCUMENTED:
        until(lambda body=body: project.post(body), what="answered 200")  # type: ignore[misc]
    events = "SELECT count(*) FROM ingest.events"
    until(lambda: int(project.query(events)) == len(set(DOCUMENTED)), what="admitted")
    until(lambda: project.query(NOT_DONE) == "0", what="processed")
    assert int(project.query("SELECT count(*) FROM ingest.jobs")) > 0


def test_the_console_lets_its_user_in_and_no_other(project: Project) -> None:
    base = f"http://127.0.0.1:{project.port('CONSOLE_PORT')}"

    def login(password: str) -> str:
        client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        form = urllib.parse.urlencode({"name": "me", "password": password}).encode()
        try:
            with client.open(f"{base}/login", form, timeout=60):
                pass
            with client.open(f"{base}/api/v1/overview", timeout=60) as answer:
                return str(answer.status)
        except urllib.error.HTTPError as error:
            return str(error.code)

    until(lambda: login(PASSWORD) == "200", what="the console is up")
    assert login("a wrong password") == "403"


def test_all_of_it_killed_under_load_and_started_again_loses_nothing(project: Project) -> None:
    acknowledged: list[int] = []
    with traffic(project, itertools.count(1_000_000), acknowledged):
        until(lambda: len(acknowledged) > 50, what="traffic")
        project.engine.run("kill", "--all", "--signal=KILL")
        before = len(acknowledged)
        project.up()
        until(lambda: len(acknowledged) > before + 50, what="traffic after the start")
    until(lambda: is_processed(project, len(acknowledged)), what="every order, once")
    assert len(acknowledged) == len(set(acknowledged))
