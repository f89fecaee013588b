"""The channels against servers that stand in for Slack, a mail server and a webhook's receiver."""

import base64
import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook as Library

from ingest.alerts import notices
from ingest.alerts.channels.base import ChannelFailed, Envelope
from ingest.alerts.channels.send import send
from ingest.alerts.configuration import Apprise, Email, Slack, Webhook
from ingest.alerts.notices import Entry, Message
from ingest.secret_references import SecretMissing
from tests.support.http_taker import Taker, running
from tests.support.ports import free_port

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ENTRY = Entry(
    alert=1,
    rule="no_worker",
    subject="",
    sentence="No <worker> & no relay.",
    advice="Start one.",
    runbook="docs/runbooks.md#no_worker",
    since="2026-03-01T20:00:00+00:00",
)
ENVELOPE = Envelope(
    id=UUID(int=7),
    made_at=datetime(2026, 3, 1, 20, tzinfo=UTC),
    message=Message(
        kind="fired", urgent=True, title="Alert: No <worker> & no relay.", entries=(ENTRY,)
    ),
)


@pytest.fixture
def taker() -> Iterator[Taker]:
    with running() as server:
        yield server


class MailServer(socketserver.ThreadingTCPServer):
    """An SMTP server that keeps mail; it offers no TLS."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.refuses = False
        self.mails: list[bytes] = []


class _Smtp(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 mail.example.com")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                self._say("250 mail.example.com")
            elif verb == b"DATA":
                self._say("354 go on")
                mail = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    mail += part
                self.server.mails.append(mail)
                self._say("250 kept")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            elif verb == b"RCPT" and self.server.refuses:
                self._say("550 no such user")
            else:
                self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def email(port: int, **more: Any) -> Email:
    fields = {"kind": "email", "host": "127.0.0.1", "port": port, "tls": "none"}
    return Email.model_validate(
        fields | {"from": "ingest@example.com", "to": ["a@example.com", "b@example.com"]} | more
    )


def test_slack_gets_the_text_in_its_markup(taker: Taker) -> None:
    channel = Slack(kind="slack", url_env="SLACK_URL")
    assert send(channel, ENVELOPE, {"SLACK_URL": taker.url}) == "HTTP 200: ok"
    ((headers, body),) = taker.taken
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["text"].startswith(
        "*Alert: No &lt;worker&gt; &amp; no relay.*\nStart one.\nSince 2026-03-01T20:00:00+00:00."
    )


@pytest.mark.parametrize("status", [302, 404, 500])
def test_another_status_is_a_failure_that_tells_no_secret(taker: Taker, status: int) -> None:
    taker.status, taker.answer = status, b"no_service " + taker.url.encode()
    with pytest.raises(ChannelFailed) as failed:
        send(Slack(kind="slack", url_env="SLACK_URL"), ENVELOPE, {"SLACK_URL": taker.url})
    assert str(failed.value) == f"HTTP {status}: no_service …."


def test_an_address_that_nobody_answers_is_a_failure() -> None:
    url = f"http://127.0.0.1:{free_port()}/SECRET"
    with pytest.raises(ChannelFailed, match=r"^It cannot be reached \(Connection refused\)\.$"):
        send(Slack(kind="slack", url_env="SLACK_URL"), ENVELOPE, {"SLACK_URL": url})
    with pytest.raises(SecretMissing, match="SLACK_URL: it is not set"):
        send(Slack(kind="slack", url_env="SLACK_URL"), ENVELOPE, {})


def test_the_library_of_standard_webhooks_verifies_a_webhook(taker: Taker) -> None:
    channel = Webhook(kind="webhook", url=taker.url, secret_env="KEY")
    for _ in range(2):
        send(channel, ENVELOPE, {"KEY": KEY})
    (headers, body), (again, _) = taker.taken
    document = Library(KEY).verify(body, headers)
    assert document["type"] == "alert.fired"
    assert document["data"]["entries"][0]["rule"] == "no_worker"
    assert headers["webhook-id"] == again["webhook-id"]
    with pytest.raises(ChannelFailed, match="24 bytes or more"):
        send(channel, ENVELOPE, {"KEY": "whsec_short"})


def test_mail_arrives_for_everybody(mail_server: MailServer) -> None:
    channel = email(mail_server.server_address[1])
    assert send(channel, ENVELOPE, {}) == "Accepted"
    mail = message_from_bytes(mail_server.mails[0])
    assert mail["Subject"] == "[ingest] Alert: No <worker> & no relay."
    assert mail["To"] == "a@example.com, b@example.com"
    assert mail["Message-ID"] == f"<{ENVELOPE.id}@example.com>"
    assert "docs/runbooks.md#no_worker" in mail.get_payload()


def test_a_mail_server_that_refuses_or_has_no_tls_is_a_failure(mail_server: MailServer) -> None:
    port = mail_server.server_address[1]
    with pytest.raises(ChannelFailed, match="offers no STARTTLS"):
        send(email(port, tls="starttls"), ENVELOPE, {})
    mail_server.refuses = True
    with pytest.raises(ChannelFailed, match="No recipient is accepted"):
        send(email(port), ENVELOPE, {})
    assert not mail_server.mails


def test_apprise_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    channel = Apprise(kind="apprise", url_env="URL")
    with pytest.raises(ChannelFailed, match=r"apprise is not installed: pip install"):
        send(channel, ENVELOPE, {"URL": "json://127.0.0.1"})


def test_apprise_gets_title_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, str] = {}

    class Stand:
        """What the library has of `Apprise`."""

        def add(self, url: str) -> bool:
            return url.startswith("json://")

        def notify(self, **given: str) -> bool:
            said.update(given)
            return True

    monkeypatch.setitem(sys.modules, "apprise", SimpleNamespace(Apprise=Stand))
    channel = Apprise(kind="apprise", url_env="URL")
    assert send(channel, ENVELOPE, {"URL": "json://127.0.0.1"}) == "Accepted"
    assert said["title"] == ENVELOPE.message.title
    assert said["body"] == notices.text(ENVELOPE.message).partition("\n")[2]
    with pytest.raises(ChannelFailed, match="does not know this kind"):
        send(channel, ENVELOPE, {"URL": "nonsense://"})
