"""The command that sends a delivery again sends these bytes, signed."""

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from ingest.console.ui import resend_command
from ingest.sources.base import Headers, WebhookRequest
from ingest.sources.described import shipped, template
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat, described

NOW = 1_795_000_000
VARIABLE = "${SECRET:?is the secret of the source}"
# Stands in for curl: keeps its arguments and what comes in.
RECORDER = f"""#!{sys.executable}
import json, sys
open("arguments", "w").write(json.dumps(sys.argv[1:]))
open("body", "wb").write(sys.stdin.buffer.read())
"""


def test_a_shell_sends_the_same_bytes_with_a_good_signature(tmp_path: Path) -> None:
    body = '{"event":"x","data":{"a":"it\'s `$(touch owned)` \\n \u0623"}}'.encode()
    fake = tmp_path / "curl"
    fake.write_text(RECORDER)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    command = resend_command.command("http://localhost/hook", awalchat(SECRET), body, (), now=NOW)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env={"PATH": path}, check=True)
    assert (tmp_path / "body").read_bytes() == body
    assert not (tmp_path / "owned").exists()
    arguments = (tmp_path / "arguments").read_text()
    for name, value in signed_headers(body, timestamp=NOW).items():
        assert f"{name}: {value}".lower() in arguments.lower()


@pytest.mark.parametrize("variable", ["the/token'1234567890", ""])
def test_a_token_is_taken_from_a_variable_by_the_shell(tmp_path: Path, variable: str) -> None:
    fake = tmp_path / "curl"
    fake.write_text(RECORDER)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    source = described("gitlab", "the/token'1234567890")
    command = resend_command.command("http://localhost/hook", source, b"{}", (), now=NOW)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SECRET": variable}
    ran = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    if variable:
        assert f"x-gitlab-token: {variable}" in json.loads((tmp_path / "arguments").read_text())
    else:
        assert "SECRET: is the secret of the source" in ran.stderr
        assert not (tmp_path / "arguments").exists()


@pytest.mark.parametrize("name", [name for name in shipped.names() if name != "moyasar"])
@pytest.mark.parametrize("alternative", [0, 1])
def test_what_is_sent_again_is_the_same_event_stamped_and_signed_anew(
    name: str, alternative: int
) -> None:
    """Whichever of two headers names it: Svix's are an alternative to those of Standard
    Webhooks."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    source = described(name, secret)
    body = source.samples.make(source.samples.types[0], Random(1), datetime.fromtimestamp(0, UTC))
    naming = {
        part.names[0]: part.names[min(alternative, len(part.names) - 1)]
        for line in (*source.description.id, *source.description.type)
        for part in template.parse(line)
        if part.kind == "header"
    }
    stored = {
        naming.get(header, header): f"of-this-event-{header}" if header in naming else value
        for header, value in source.sign(body, now=NOW - 90_000).items()
    }
    kept = as_headers(stored, only=source.kept_headers)
    sent = source.sign_again(body, kept, now=NOW)
    command = resend_command.command("http://localhost/hook", source, body, kept, now=NOW)
    shown = {f"{header}: {value}".replace(secret, VARIABLE) for header, value in sent.items()}
    assert shown <= set(shlex.split(command))
    assert secret not in command
    again = as_headers(sent)
    request = WebhookRequest("POST", f"/webhooks/{name}", again, body)
    assert source.verify(request, now=NOW) in source.key_ids
    envelope = source.parse(body)
    assert source.identify(envelope, again) == source.identify(envelope, kept)


def as_headers(headers: Mapping[str, str], only: Container[bytes] | None = None) -> Headers:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return [pair for pair in pairs if only is None or pair[0] in only]
