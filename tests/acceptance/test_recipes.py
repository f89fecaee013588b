"""The modules of docs/recipes.md do what the page says, tried with the plug-in that it names."""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Connection, text
from standardwebhooks import Webhook

from ingest import settings
from ingest.sources.base import WebhookRequest
from ingest.sources.registry import configured
from workers import registry
from workers.testing import Fault, Pipeline, under_faults

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
MODULES = dict(re.findall(r"`(\w+)\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
SECRET = "whsec_" + base64.b64encode(b"a secret of the test's, 32 bytes").decode()
RECONCILED = re.search(r'TABLE = "(.*?)"', MODULES["reconcile"])
OUTBOX = re.search(r'TABLE = """(.*?)"""', MODULES["outbox"], re.DOTALL)
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="session")
def pipeline_tables() -> str:
    assert OUTBOX is not None
    assert RECONCILED is not None
    return f"""
    {OUTBOX.group(1)};
    {RECONCILED.group(1)};
    CREATE TABLE media (message text PRIMARY KEY, file text NOT NULL);
    CREATE TABLE fulfilments (order_id bigint PRIMARY KEY, state text, reason text);
    """


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Loads a module of the page."""
    monkeypatch.setattr(registry, "declared", [])

    def from_page(name: str) -> Any:
        module = ModuleType(f"recipe_{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(MODULES[name], f"{name}.py", "exec"), vars(module))  # noqa: S102 - the page is what is tested
        return module

    return from_page


class Service:
    """An HTTP server that answers as a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[Answer] = []
        self.usual: Callable[[str], Answer] = lambda _path: (200, {}, b"{}")
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append((self.path, headers, self.rfile.read(length)))
                code, more, content = (
                    service.answers.pop(0) if service.answers else service.usual(self.path)
                )
                self.send_response(code)
                for name, value in {**more, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    started = Service()
    yield started
    started.close()


def scalar(db: Connection, query: str) -> Any:
    return db.scalar(text(query))


@under_faults
def test_the_crm_can_tell_repeated_calls(
    pipeline: Pipeline, load: Callable[[str], Any], service: Service
) -> None:
    crm = load("crm")
    crm.ADDRESS = service.url
    orders = [pipeline.event("order.created", order_id=number) for number in (1, 2)]
    assert all(attempt.succeeded for attempt in pipeline.run_all(crm.tell_crm, orders))
    keys = {headers["idempotency-key"]: body for _, headers, body in service.asked}
    assert sorted(json.loads(body)["order_id"] for body in keys.values()) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "outcome", "retry_in_s"),
    [
        ((503, {"Retry-After": "120"}, b""), "snoozed", 120),
        ((429, {"Retry-After": "7"}, b""), "snoozed", 7),
        ((429, {}, b""), "failed", None),
        ((500, {}, b""), "failed", None),
        ((422, {}, b""), "discarded", None),
    ],
)
def test_each_answer_of_the_crm_has_its_outcome(
    pipeline: Pipeline,
    load: Callable[[str], Any],
    service: Service,
    answer: Answer,
    outcome: str,
    retry_in_s: float | None,
) -> None:
    crm = load("crm")
    crm.ADDRESS = service.url
    service.answers = [answer]
    attempt = pipeline.run(crm.tell_crm, pipeline.event("order.created"))
    assert attempt.outcome == outcome
    if retry_in_s is not None:
        assert attempt.retry_in_s == retry_in_s


@under_faults
def test_media_is_kept_once_whatever_fails(
    pipeline: Pipeline,
    load: Callable[[str], Any],
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WHATSAPP_TOKEN", "the token")
    media, content = load("media"), b"a picture"
    vars(media).update(GRAPH=service.url, HOSTS=("127.0.0.1",), FOLDER=tmp_path / "media")
    address = json.dumps({"url": f"{service.url}/file"}).encode()
    service.usual = lambda path: (200, {}, content if path == "/file" else address)
    service.answers = [(500, {}, b""), (200, {}, address), (404, {}, b"")]
    event = picture(pipeline, content)
    attempts = pipeline.run_until_done(media.keep_media, event)
    assert [attempt.outcome for attempt in attempts] == ["failed", "failed", "succeeded"]
    assert pipeline.run(media.keep_media, event).succeeded
    digest = hashlib.sha256(content).hexdigest()
    assert [path.name for path in (tmp_path / "media").iterdir()] == [digest]
    assert scalar(pipeline.db, "SELECT string_agg(file, ',') FROM media") == digest
    assert {headers["authorization"] for _, headers, _ in service.asked} == {"Bearer the token"}
    assert [path for path, _, _ in service.asked].count("/file") == 2


def test_the_token_goes_to_meta_alone_and_another_file_is_refused(
    pipeline: Pipeline,
    load: Callable[[str], Any],
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WHATSAPP_TOKEN", "the token")
    media = load("media")
    vars(media).update(GRAPH=service.url, HOSTS=("127.0.0.1",), FOLDER=tmp_path / "media")
    service.answers = [(200, {}, b'{"url": "http://localhost/file"}')]
    attempt = pipeline.run(media.keep_media, picture(pipeline, b"a picture"))
    assert "the token stays here" in str(attempt.error)
    service.answers = [(200, {}, json.dumps({"url": service.url}).encode()), (200, {}, b"another")]
    attempt = pipeline.run(media.keep_media, picture(pipeline, b"a picture"))
    assert "not what the message says" in str(attempt.error)
    assert not (tmp_path / "media").exists()


def picture(pipeline: Pipeline, content: bytes) -> Any:
    """A message with a picture of this content."""
    sample = pipeline.event("messages.image", source="whatsapp")
    body = json.loads(sample.body)
    image = body["entry"][0]["changes"][0]["value"]["messages"][0]["image"]
    image["sha256"] = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return pipeline.read(json.dumps(body).encode(), source="whatsapp")


@pytest.fixture
def reconcile(load: Callable[[str], Any], service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a shop that has made orders 1 to 3; of the first an event is here."""
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", f"{SECRET},another-of-the-same-sender")
    module = load("reconcile")
    vars(module).update(API=f"{service.url}/orders", RECEIVER=f"{service.url}/webhooks")
    shop = json.dumps([{"order_id": number, "total": 5} for number in (1, 2, 3)]).encode()
    service.usual = lambda path: (200, {}, shop if path.startswith("/orders") else b"{}")
    return module


def is_here(db: Connection, order: int) -> None:
    db.execute(
        text(
            "INSERT INTO ingest.events (id, source, event_id, type, fingerprint, received_at)"
            " VALUES (gen_random_uuid(), 'awalchat', :name, 'order.created', '', now())"
        ),
        {"name": f"order.created:{order}"},
    )


def posted(service: Service) -> set[str]:
    """The ids of the events that were posted, verified as the receiver does."""
    source = configured(settings.load().sources)["awalchat"].with_secret(SECRET)
    names = set()
    for path, headers, body in service.asked:
        if path == "/webhooks":
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            request = WebhookRequest("POST", path, pairs, body)
            source.verify(request, now=int(headers["x-awal-webhook-timestamp"]))
            names.add(source.identify(source.parse(body)).event_id)
    return names


@under_faults
def test_what_a_sender_lost_is_fetched_in_its_own_form(
    pipeline: Pipeline, reconcile: Any, service: Service
) -> None:
    is_here(pipeline.db, 1)
    due = pipeline.due(reconcile.fetch_lost_orders)
    assert pipeline.run(reconcile.fetch_lost_orders, due).succeeded
    assert posted(service) == {"order.created:2", "order.created:3"}


def test_a_run_that_failed_leaves_no_gap(
    pipeline: Pipeline, reconcile: Any, service: Service
) -> None:
    def run_at(hour: int) -> str:
        noon = datetime(2026, 6, 1, hour, tzinfo=UTC)
        due = pipeline.due(reconcile.fetch_lost_orders, noon)
        pipeline.run(reconcile.fetch_lost_orders, due)
        (asked,) = [path for path, _, _ in service.asked[-4:] if path.startswith("/orders")][-1:]
        return str(parse_qs(urlsplit(asked).query)["created_from"][0])

    assert run_at(12) == "2026-05-31T11:50:00+00:00"
    service.answers = [(500, {}, b"")]
    assert run_at(13) == "2026-06-01T11:50:00+00:00"
    assert run_at(14) == "2026-06-01T11:50:00+00:00"
    assert run_at(15) == "2026-06-01T13:50:00+00:00"


@under_faults
def test_each_line_is_an_event_with_an_id_that_repeats(
    pipeline: Pipeline,
    load: Callable[[str], Any],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINES_SECRET", SECRET)
    lines = load("lines")
    lines.RECEIVER = service.url
    order = pipeline.event("order.created", order_id=7, lines=[{"sku": "a"}, {"sku": "b"}])
    assert pipeline.run(lines.split_into_lines, order).succeeded
    posted = {
        headers["webhook-id"]: Webhook(SECRET).verify(body, headers)
        for _, headers, body in service.asked
    }
    assert posted == {
        f"{order.id}-{number}": {"type": "order.line", "data": {"order_id": 7, "sku": sku}}
        for number, sku in enumerate("ab")
    }


class Calls:
    """The services of the saga: each does a thing once for a key."""

    def __init__(self, refused: type[Exception]) -> None:
        self.refused = refused
        self.refuses: set[str] = set()
        self.fails: list[str] = []
        self.done: dict[str, str] = {}

    def charge(self, _order: int, key: str) -> None:
        self._do("charge", key)

    def book_parcel(self, _order: int, key: str) -> None:
        self._do("parcel", key)

    def refund(self, _order: int, key: str) -> None:
        self._do("refund", key)

    def _do(self, what: str, key: str) -> None:
        if what in self.fails:
            self.fails.remove(what)
            raise ConnectionError(what)
        if what in self.refuses:
            raise self.refused(f"no {what}")
        self.done[key] = what


@pytest.mark.parametrize("refuses", ["", "charge", "parcel"])
@pytest.mark.parametrize("pipeline", [Fault.NONE, Fault.CRASH], ids=str, indirect=True)
def test_a_saga_ends_whole_or_undone(
    pipeline: Pipeline, load: Callable[[str], Any], refuses: str
) -> None:
    saga = load("saga")
    saga.services = calls = Calls(saga.Refused)
    calls.refuses, calls.fails = {refuses}, ["charge", "parcel", "refund"]
    order = pipeline.event("order.created", order_id=7)
    attempts = pipeline.run_until_done(saga.fulfil, order)
    assert attempts[-1].succeeded
    row = pipeline.db.execute(text("SELECT * FROM fulfilments")).one()
    did = sorted(calls.done.values())
    if refuses:
        assert tuple(row) == (7, "cancelled", f"no {refuses}")
        assert "refund" in did
    else:
        assert tuple(row) == (7, "fulfilled", None)
        assert did == ["charge", "parcel"]


@pytest.mark.parametrize(
    "pipeline", [Fault.NONE, Fault.CRASH, Fault.DUPLICATE], ids=str, indirect=True
)
def test_the_outbox_has_one_mail_for_an_order(
    pipeline: Pipeline, load: Callable[[str], Any]
) -> None:
    outbox = load("outbox")
    order = pipeline.event("order.created", order_id=7, email="a@example.org")
    assert pipeline.run(outbox.write_mail, order).succeeded
    assert scalar(pipeline.db, "SELECT count(*) FROM outbox") == 1


def test_a_mail_whose_sender_died_is_not_sent_again(
    pipeline_engine: Any, load: Callable[[str], Any]
) -> None:
    outbox = load("outbox")
    with pipeline_engine.begin() as db:
        db.execute(text("INSERT INTO outbox VALUES ('a', 'r', 's'), ('b', 'r', 's')"))
    sent: list[str] = []

    def die(_mail: Any) -> None:
        raise ConnectionError

    try:
        with pytest.raises(ConnectionError):
            outbox.send_next(pipeline_engine, die)
        assert outbox.send_next(pipeline_engine, lambda mail: sent.append(mail.key))
        assert not outbox.send_next(pipeline_engine, lambda mail: sent.append(mail.key))
        with pipeline_engine.connect() as db:
            states = dict(db.execute(text("SELECT key, state FROM outbox")).all())
        assert sorted(states.values()) == ["sending", "sent"]
        assert [key for key, state in states.items() if state == "sent"] == sent
    finally:
        with pipeline_engine.begin() as db:
            db.execute(text("DELETE FROM outbox"))
