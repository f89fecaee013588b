"""Why a saved request would be refused is said step by step."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from ingest.sources import diagnosis
from ingest.sources.base import Source, WebhookRequest
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.source import source_class
from ingest.sources.diagnosis import BadRequestFile, Step
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat
from tests.support.vectors import NOW as VECTORS_NOW
from tests.support.vectors import SECRETS, VECTORS, Vector

NOW = 1_768_900_000
EVENT = b'{"event":"order.created","timestamp":"2026-01-20T10:30:00Z","data":{"order_id":5}}'
DAY_S = 86_400


def saved(body: bytes, headers: Mapping[str, str], target: str = "/webhooks/awalchat") -> bytes:
    """Return a request as a proxy's log or `curl -v` shows it."""
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def last(raw: bytes, *, source: Source | None = None, now: int = NOW) -> Step:
    request = diagnosis.read_request(raw)
    steps = list(
        diagnosis.diagnose(source or awalchat(SECRET), request, now=now, body_limit=10_000)
    )
    assert all(step.is_good for step in steps[:-1])
    return steps[-1]


def test_a_good_request_is_followed_to_its_event() -> None:
    step = last(saved(EVENT, signed_headers(EVENT, timestamp=NOW)))
    assert (step.part, step.is_good) == ("body", True)
    assert "order.created:5" in step.sentence


@pytest.mark.parametrize(
    ("raw", "part", "said"),
    [
        (saved(EVENT, signed_headers(EVENT, timestamp=NOW - 3 * DAY_S)), "time", "3 days ago"),
        (saved(EVENT, signed_headers(EVENT, timestamp=NOW + 601)), "time", "10 minutes ahead"),
        (saved(EVENT + b"\n", signed_headers(EVENT, timestamp=NOW)), "body", "line break"),
        (
            saved(json.dumps(json.loads(EVENT)).encode(), signed_headers(EVENT, timestamp=NOW)),
            "body",
            "written again",
        ),
        (
            saved(EVENT, signed_headers(EVENT, timestamp=NOW, secret="another_secret_0123456789")),
            "secret",
            "another secret",
        ),
        (saved(EVENT, {}), "header", "missing"),
        (saved(EVENT, {"X-Awal-Webhook-Timestamp": str(NOW)}), "header", "signature"),
        (saved(b"[]", signed_headers(b"[]", timestamp=NOW)), "body", "body_not_object"),
        (saved(b"x" * 10_001, signed_headers(b"", timestamp=NOW)), "body", "413"),
        (saved(EVENT, {}, "/webhooks/awalchat/"), "request", "POST to /webhooks/awalchat"),
    ],
)
def test_what_is_to_blame_is_named(raw: bytes, part: str, said: str) -> None:
    step = last(raw)
    assert (step.part, step.is_good) == (part, False)
    assert said in step.sentence


def test_without_a_secret_the_variable_is_named() -> None:
    step = last(saved(EVENT, signed_headers(EVENT, timestamp=NOW)), source=awalchat())
    assert (step.part, step.is_good) == ("secret", False)
    assert "INGEST_AWALCHAT_SECRETS" in step.sentence


def test_a_token_is_blamed_on_the_secret_alone_and_shown_nowhere() -> None:
    token = {"scheme": "token", "query": "token"}
    table = shipped.table("standard-webhooks") | {"verify": token, "time": None}
    made = source_class("shop", Description.model_validate(table))
    source = made(made.settings(secrets=(SecretStr(SECRET),)))
    raw = saved(EVENT, {"at": str(NOW)}, "/webhooks/shop?token=not_the_right_one")
    steps = list(
        diagnosis.diagnose(source, diagnosis.read_request(raw), now=NOW, body_limit=10_000)
    )
    assert (steps[-1].part, steps[-1].is_good) == ("secret", False)
    assert "INGEST_SHOP_SECRETS" in steps[-1].advice
    assert "None of the keys signed this body" not in steps[-1].sentence
    assert not [step for step in steps if "not_the_right_one" in step.sentence]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_it_agrees_with_the_verdict_of_every_signed_test_request(vector: Vector) -> None:
    """No sentence holds a secret, whatever the request is."""
    request = WebhookRequest("POST", "/webhooks/awalchat", vector.raw_headers, vector.body)
    steps = list(diagnosis.diagnose(awalchat(*SECRETS), request, now=VECTORS_NOW, body_limit=2**20))
    assert steps[-1].is_good is (vector.status == 200)
    assert not [step for step in steps for secret in SECRETS if secret in step.sentence]


@pytest.mark.parametrize("raw", [b"", b"\x00", b"{}", b"POST\n\n", b"POST /x HTTP/1.1\nodd\n\nx"])
def test_a_file_that_is_no_request_is_told_in_a_sentence(raw: bytes) -> None:
    with pytest.raises(BadRequestFile, match=r"\.$"):
        diagnosis.read_request(raw)


@pytest.mark.parametrize("name", shipped.names())
def test_the_test_event_of_every_description_is_accepted(name: str) -> None:
    table = shipped.table(name) | {"url": f"https://hooks.example.com/webhooks/{name}"}
    made = source_class(name, Description.model_validate(table))
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    source = made(made.settings(secrets=(SecretStr(secret),)))
    if name == "moyasar":  # its token stands in the body
        return
    body = made.description.samples[0].body.replace("<id>", "1").replace("<number>", "1")
    body = body.replace("<seconds>", "1").replace("<time>", "2026-01-20T10:30:00Z")
    raw = saved(body.encode(), source.sign(body.encode(), now=NOW), f"/webhooks/{name}")
    step = last(raw, source=source)
    assert step.is_good, step.sentence


def ingest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", "sources", *arguments],
        env={"INGEST_AWALCHAT_SECRETS": SECRET, "INGEST_LOG_FORMAT": "json"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_say_it_and_tell_by_their_status(tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(saved(EVENT, signed_headers(EVENT, timestamp=NOW)))
    request = ("--request", str(tmp_path / "request"))
    refused = ingest("verify", "awalchat", *request)
    assert refused.returncode == 1
    *_, blamed, advice = refused.stdout.splitlines()
    assert blamed.startswith("FAIL time: ")
    assert "clocks" in advice
    accepted = ingest("verify", "awalchat", *request, "--at", "2026-01-20T09:06:40Z")
    assert (accepted.returncode, accepted.stdout.splitlines()[-1]) == (0, "It would be accepted.")
    (tmp_path / "s.toml").write_text('[octo]\npreset = "github"\n')
    meaning = ingest("check", str(tmp_path / "s.toml"))
    assert "octo (GitHub)" in meaning.stdout
    assert "INGEST_OCTO_SECRETS" in meaning.stdout
    (tmp_path / "s.toml").write_text('[octo]\npreset = "github"\nodd = 1\n')
    mistaken = ingest("check", str(tmp_path / "s.toml"))
    assert mistaken.returncode != 0
    assert "s.toml:3: octo.odd: there is no such key." in mistaken.stderr
    nowhere = ingest("verify", "awalchat", "--request", str(tmp_path / "none"))
    assert "No such file or directory." in nowhere.stderr
