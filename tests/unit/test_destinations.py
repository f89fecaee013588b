"""What a description of a destination may say, what is sent, and what an answer means."""

import asyncio
import base64
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError

from ingest import outgoing, standard_webhooks
from ingest.cli import main
from ingest.destinations import files, message, samples, sending
from ingest.destinations.answer import Meaning, judge
from ingest.destinations.description import Destination
from ingest.destinations.message import Message
from ingest.destinations.samples import SampleEvent
from ingest.errors import SettingsError
from ingest.outgoing import Answer, NoAnswer
from ingest.retry_after import LONGEST_WAIT_S, retry_after_s
from ingest.sources.described import files as sources
from tests.support.http_taker import Taker, running

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SECRET, OTHER = ("whsec_" + base64.b64encode(bytes([part] * 24)).decode() for part in (1, 2))
LEAST = """
[[destination]]
name = "crm"
url = "https://crm.example.com/hooks"
types = ["order.*"]
secrets_env = "CRM_SECRETS"
"""


def read(tmp_path: Path, text: str) -> tuple[Destination, ...]:
    file = tmp_path / "sources.toml"
    file.write_text(text)
    return files.read([file], ["shop"])


def test_the_least_that_is_said_of_a_destination(tmp_path: Path) -> None:
    (destination,) = read(tmp_path, LEAST)
    assert (destination.name, destination.types, destination.body) == ("crm", ("order.*",), "json")
    assert (destination.allow_http, destination.allow_private) == (False, False)


def test_a_breaker_is_off_unless_it_is_given(tmp_path: Path) -> None:
    assert read(tmp_path, LEAST)[0].breaker is None
    (given,) = read(tmp_path, LEAST + "[destination.breaker]\n")
    assert given.breaker is not None
    assert (given.breaker.after, given.breaker.probe_every_s) == (10, 30)


def test_sources_and_destinations_stand_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(f'[hub]\npreset = "github"\n{LEAST}')
    assert list(sources.read([file])) == ["hub"]
    assert [destination.name for destination in files.read([file], ["hub"])] == ["crm"]


def test_files_are_looked_for_beside_the_description(tmp_path: Path) -> None:
    text = LEAST.replace('secrets_env = "CRM_SECRETS"', 'secrets_file = "crm.secrets"')
    (destination,) = read(tmp_path, text + 'headers_file = { authorization = "crm.token" }\n')
    (tmp_path / "crm.secrets").write_text(f"{SECRET}\n{OTHER}\n")
    (tmp_path / "crm.token").write_text("Bearer x\n")
    where = sending.target(destination, {})
    assert len(where.keys) == 2
    assert where.headers == {"authorization": "Bearer x"}


MISTAKES = {
    "single brackets": (
        LEAST.replace("[[destination]]", "[destination]"),
        "2: destination: each destination is a table [[destination]], with double brackets.",
    ),
    "no such key": (LEAST + "attempts = 3\n", "7: destination.0.attempts: there is no such key"),
    "a key that is misspelt": (
        LEAST + "max_attempt = 3\n",
        "7: destination.0.max_attempt: there is no such key; perhaps max_attempts was meant.",
    ),
    "of the second": (
        LEAST + LEAST.replace("crm", "erp").replace("types", "type"),
        "11: destination.1.type: there is no such key; perhaps types was meant.",
    ),
    "no types": (LEAST.replace('"order.*"', ""), "5: destination.0.types: "),
    "no address": (
        LEAST.replace("url =", "# url ="),
        "2: destination.0: one of url, url_env, url_file is needed.",
    ),
    "no secret": (
        LEAST.replace("secrets_env", "# secrets_env"),
        "2: destination.0: one of secrets_env, secrets_file is needed: requests are signed.",
    ),
    "a secret in it": (
        LEAST + f'secrets = "{SECRET}"\n',
        "7: destination.0.secrets: a secret does not stand in this file; use secrets_env or",
    ),
    "a token in it": (
        LEAST + 'headers = { authorization = "Bearer SENTINEL" }\n',
        "7: destination.0.headers: a secret does not stand in this file: put authorization into",
    ),
    "a password in the address": (
        LEAST.replace("crm.example", "me:SENTINEL@crm.example"),
        "4: destination.0.url: a password does not stand in an address: use headers_env.",
    ),
    "http": (
        LEAST.replace("https:", "http:"),
        "2: destination.0: http is not encrypted: use https, or set allow_http = true.",
    ),
    "a private address": (
        LEAST.replace("crm.example.com", "10.1.2.3"),
        "2: destination.0: a private address needs allow_private = true.",
    ),
    "this machine": (
        LEAST.replace("crm.example.com", "localhost:8443"),
        "2: destination.0: a private address needs allow_private = true.",
    ),
    "this machine in IPv6": (
        LEAST.replace("crm.example.com", "[::1]:8443"),
        "2: destination.0: a private address needs allow_private = true.",
    ),
    "our own header": (
        LEAST + 'headers = { webhook-id = "x" }\n',
        "7: destination.0.headers: the header webhook-id is set by us.",
    ),
    "a header of two lines": (
        LEAST + 'headers = { x-a = "b\\r\\nx-c: d" }\n',
        "7: destination.0.headers: a header's value is one line of ASCII.",
    ),
    "a name with a dot, which would be in the signed id": (
        LEAST.replace('"crm"', '"crm.eu"'),
        "3: destination.0.name: a name is lower-case letters, digits and dashes.",
    ),
    "two of a name": (LEAST + LEAST, "9: destination.1.name: another destination has this name"),
    "an unknown source": (
        LEAST + 'sources = ["shpo"]\n',
        "7: destination.0.sources: there is no source of this name.",
    ),
    "an order by no field": (
        LEAST + 'ordered_by = ["order..id"]\n',
        "7: destination.0.ordered_by: name a field of the data (order_id, order.id), or up to 8",
    ),
    "what follows a dead letter, without an order": (
        LEAST + 'on_dead = "skip"\n',
        "2: destination.0: on_dead needs ordered_by: without an order nothing is behind.",
    ),
    "the replays' queue": (LEAST + 'queue = "replay"\n', "7: destination.0.queue: the queue"),
    "a breaker that is a number": (LEAST + "breaker = 10\n", "7: destination.0.breaker: "),
    "a breaker that opens after nothing": (
        LEAST + "[destination.breaker]\nafter = 0\n",
        "8: destination.0.breaker.after: ",
    ),
    "a key of a breaker that is misspelt": (
        LEAST + "[destination.breaker]\nprobe_every = 30\n",
        "8: destination.0.breaker.probe_every: there is no such key; perhaps probe_every_s was",
    ),
    "too many at once": (LEAST + "threads = 101\n", "7: destination.0.threads: "),
    "no rate": (LEAST + 'rate = "50"\n', "7: destination.0.rate: "),
    "a limit of no key": (
        LEAST + 'key_rate = "5/s"\n',
        "2: destination.0: key_concurrency and key_rate need limit_by: what is the key?",
    ),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_file_line_and_a_sentence(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, text)
    assert str(refused.value).removeprefix(f"{tmp_path}/sources.toml:").startswith(told)
    assert "SENTINEL" not in str(refused.value)
    assert SECRET not in str(refused.value)


EVENT = SampleEvent(
    id="0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f",
    source="shop",
    event_id="order.created:7",
    type="order.created",
    occurred_at=None,
    received_at=NOW,
    data={"total": Decimal("12.50"), "name": "أمل"},
    body=b"{}",
)


def test_an_event_keeps_its_digits_and_is_the_same_bytes_each_time() -> None:
    told = message.of_event(EVENT)
    assert b'"total":12.50' in told.body
    assert json.loads(told.body)["data"]["name"] == "أمل"
    assert told == message.of_event(EVENT)


def test_each_secret_signs_and_no_other_verifies() -> None:
    now = datetime.now(UTC)
    keys = [standard_webhooks.key(secret) for secret in (SECRET, OTHER)]
    told = message.of_event(EVENT)
    headers = message.headers(told, "id:crm", keys, timestamp=int(now.timestamp()), attempt=3)
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(told.body, headers)["event_id"] == "order.created:7"
    stranger = Webhook(base64.b64encode(bytes(24)).decode())
    for body in (told.body, told.body + b" "):
        with pytest.raises(WebhookVerificationError):
            stranger.verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(told.body, headers | {"webhook-id": "id:erp"})
    assert headers["webhook-attempt"] == "3"
    assert headers["webhook-signature"].count("v1,") == 2


WAITS = {
    "seconds": ("120", 120.0),
    "with space around": (" 120 ", 120.0),
    "a date": (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300.0),
    "more than a day": ("999999", LONGEST_WAIT_S),
    "very many": ("9" * 400, LONGEST_WAIT_S),
    "a date far ahead": ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT_S),
    "a year beyond every date": ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
    "a day beyond them": ("Mon, 99999999999 Jan 2027 00:00:00 GMT", None),
    "an hour beyond them": ("Mon, 01 Jan 2027 99999999999:00:00 GMT", None),
    "a zone beyond them": ("Mon, 01 Jan 2027 00:00:00 +9999999999999", None),
    "a month that is none": ("Mon, 01 Nul 2027 00:00:00 GMT", None),
    "a date of very many digits": (f"Mon, 01 Jan {'9' * 5_000} 00:00:00 GMT", None),
    "no text": ("\x00\ud800", None),
    "now": ("0", None),
    "a date that is over": (format_datetime(NOW - timedelta(minutes=5), usegmt=True), None),
    "negative": ("-5", None),
    "a fraction": ("1.5", None),
    "digits of another script": ("١٢", None),
    "no time": ("soon", None),
    "empty": ("", None),
    "none": (None, None),
}


@pytest.mark.parametrize(("value", "seconds"), WAITS.values(), ids=WAITS)
def test_retry_after_is_read_as_seconds_or_a_date_and_bounded(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after_s(value, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "meaning", "waits"),
    [
        (200, Meaning.TAKEN, False),
        (299, Meaning.TAKEN, False),
        (301, Meaning.REFUSED, False),
        (308, Meaning.REFUSED, False),
        (400, Meaning.REFUSED, False),
        (410, Meaning.GONE, False),
        (429, Meaning.REFUSED, True),
        (500, Meaning.REFUSED, False),
        (503, Meaning.REFUSED, True),
    ],
)
def test_what_an_answer_means(status: int, meaning: Meaning, waits: bool) -> None:
    verdict = judge(Answer(status=status, headers={"retry-after": "60"}, text=""), now=NOW)
    assert verdict.meaning is meaning
    assert verdict.retry_after_s == (60.0 if waits else None)


@pytest.mark.parametrize("status", [200, 308, 400, 410, 429, 500, 503])
def test_an_answer_is_judged_whatever_it_asks_for(status: int) -> None:
    for asked, seconds in (("Mon, 01 Jan 99999999999 00:00:00 GMT", None), ("7", 7)):
        answer = Answer(status=status, headers={"retry-after": asked}, text="")
        verdict = judge(answer, now=NOW)
        assert verdict.sentence.startswith(f"HTTP {status}")
        assert verdict.retry_after_s == (seconds if status in (429, 503) else None)


def test_an_answer_is_told_on_one_bounded_line_without_our_secrets() -> None:
    text = f"no\r\n\x1b[31m {SECRET} " + "x" * 2000
    verdict = judge(Answer(status=500, headers={}, text=text), SECRET, now=NOW)
    assert verdict.sentence.startswith("HTTP 500: no [31m … xxx")
    assert len(verdict.sentence) < 250
    assert verdict.sentence.isprintable()


REPEATED = {
    "the address": "https://crm.example.com/services/T0/a%20SENTINEL-TOKEN?key=SENTINEL",
    "its path and query": "Cannot POST /services/T0/a%20SENTINEL-TOKEN?key=SENTINEL",
    "its path": "Cannot POST /services/T0/a%20SENTINEL-TOKEN",
    "its path without escapes": "Cannot POST /services/T0/a SENTINEL-TOKEN",
    "a long word of it": r"no \/services\/T0: a%20SENTINEL-TOKEN",
    "a header": "not allowed: Bearer SENTINEL",
    "a header's token": "SENTINEL is not valid",
    "a cookie": "no session SENTINEL-2",
}


@pytest.mark.parametrize("text", REPEATED.values(), ids=REPEATED)
def test_an_answer_that_repeats_a_secret_address_or_a_token_is_told_without_it(
    tmp_path: Path, text: str
) -> None:
    described = LEAST.replace('url = "https://crm.example.com/hooks"', 'url_env = "CRM_URL"')
    headers = 'headers_env = { authorization = "CRM_TOKEN", cookie = "CRM_COOKIE" }\n'
    (destination,) = read(tmp_path, described + headers)
    environ = {
        "CRM_URL": REPEATED["the address"],
        "CRM_SECRETS": SECRET,
        "CRM_TOKEN": "Bearer SENTINEL",
        "CRM_COOKIE": "session=SENTINEL-2; a=b",
    }
    where = sending.target(destination, environ)
    told = judge(Answer(status=404, headers={}, text=text), *where.hidden, now=NOW).sentence
    assert "SENTINEL" not in told
    assert "…" in told


def test_an_address_of_the_file_and_the_root_of_a_secret_one_are_told(tmp_path: Path) -> None:
    (known,) = read(tmp_path, LEAST)
    (secret,) = read(tmp_path, LEAST.replace("url =", 'url_env = "CRM_URL" #'))
    environ = {"CRM_SECRETS": SECRET, "CRM_URL": "https://crm.example.com/"}
    for destination in (known, secret):
        hidden = sending.target(destination, environ).hidden
        text = "Cannot POST /hooks"
        told = judge(Answer(status=404, headers={}, text=text), *hidden, now=NOW).sentence
        assert told == "HTTP 404: Cannot POST /hooks"


def test_a_large_answer_is_not_read_to_its_end_and_a_slow_one_is_not_awaited() -> None:
    with running() as taker:
        taker.answer = b"x" * 50_000_000
        answer = asyncio.run(outgoing.request("POST", taker.url, b"", {}, timeout_s=20))
        assert len(answer.text) <= 1024
        taker.free.clear()
        with pytest.raises(NoAnswer, match=r"No answer within 0\.2 s\."):
            asyncio.run(outgoing.request("POST", taker.url, b"", {}, timeout_s=0.2))


def test_a_sample_is_of_a_type_that_the_destination_is_for(tmp_path: Path) -> None:
    (destination,) = read(tmp_path, LEAST)
    sample = samples.make(destination, {}, random=Random(1), now=NOW)
    assert sample.type == "order.test"


@contextmanager
def over_tls(folder: Path, name: str) -> Iterator[tuple[Taker, Path]]:
    """A server with a certificate for `name`, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "ca.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trusted, private)
    with Taker() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=ThreadingHTTPServer.serve_forever, args=(server, 0.02))
        thread.start()
        try:
            yield server, trusted
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_is_checked_for_the_name_and_by_the_file_that_is_named(
    tmp_path: Path,
) -> None:
    def sent(trusted: str, port: int) -> Meaning:
        text = LEAST.replace("crm.example.com", f"localhost:{port}")
        (destination,) = read(tmp_path, text + f"allow_private = true\n{trusted}")
        where = sending.target(destination, {"CRM_SECRETS": SECRET})
        what = Message(body=b"{}", content_type="application/json")
        return asyncio.run(sending.send(destination, where, what, "id", attempt=1, now=NOW)).meaning

    with over_tls(tmp_path, "localhost") as (taker, _):
        assert sent('ca_file = "ca.pem"', taker.server_port) is Meaning.TAKEN
        with pytest.raises(NoAnswer, match="its certificate is not valid"):
            sent("", taker.server_port)
    with over_tls(tmp_path, "another.example.com") as (taker, _):
        with pytest.raises(NoAnswer, match="its certificate is not valid"):
            sent('ca_file = "ca.pem"', taker.server_port)
        assert taker.taken == []


@pytest.fixture
def ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str]]:
    """Runs a command beside a described destination; returns how it ended, and what it printed."""
    (tmp_path / "sources.toml").write_text(LEAST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_SOURCES", "sources.toml")

    def ended(*command: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["ingest", *command])
        with pytest.raises(SystemExit) as exit_of:
            main.main()
        return exit_of.value.code, capsys.readouterr().out

    return ended


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["destinations", "test", "erp"], "There is no destination erp. There is crm."),
        (["destinations", "test", "crm"], "The destination crm: CRM_SECRETS: it is not set."),
        (["listen"], "Say where to forward to: --forward http://localhost:3000/hooks."),
        (["listen", "--forward", "localhost:3000"], "Say where to forward to: --forward"),
        (
            ["listen", "--forward", "http://localhost:3000", "--secret", "x"],
            "--secret: it must be whsec_ and 24 bytes or more in base64.",
        ),
        (
            ["listen", "--forward", "http://localhost:3000", "state:nothing"],
            "state",
        ),
    ],
)
def test_a_users_mistake_is_told_in_a_sentence(
    ended: Callable[..., tuple[object, str]], command: list[str], sentence: str
) -> None:
    code, _ = ended(*command)
    assert str(code).startswith("ingest: ")
    assert sentence in str(code)


def test_a_destination_is_listed_without_its_secret_and_explained(
    ended: Callable[..., tuple[object, str]],
) -> None:
    code, listed = ended("destinations", "list")
    assert code == 0
    assert listed.split("\t")[:3] == ["crm", "crm.example.com", "order.*"]
    assert "CRM_SECRETS: it is not set" in listed
    code, explained = ended("sources", "check", "sources.toml")
    assert code == 0
    assert explained.splitlines() == [
        "crm (destination)",
        "  - Events of `order.*`, of all sources, are posted to crm.example.com as JSON.",
        "  - They are signed with the secrets in CRM_SECRETS.",
        "  - A worker process sends 10 at once, and waits 15 s for each answer.",
    ]


@pytest.mark.parametrize(
    ("answered", "told"),
    [
        ("no: s3cret-token is wrong", "no: … is wrong"),
        ("the token s3cret-tok", "the token …"),
        ("s3cret-token s3cret-t", "… …"),
        ("ends", "ends"),
    ],
)
def test_no_part_of_a_secret_is_told_where_the_answer_was_cut(answered: str, told: str) -> None:
    assert outgoing.shown(answered, "s3cret-token") == told
