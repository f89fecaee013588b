"""The command that sends a delivery again sends these bytes, signed."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from ingest.console.ui import resend_command
from tests.support.signing import SECRET, signed_headers
from tests.support.sources import awalchat

NOW = 1_795_000_000
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
    command = resend_command.command("http://localhost/hook", awalchat(SECRET), body, now=NOW)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env={"PATH": path}, check=True)
    assert (tmp_path / "body").read_bytes() == body
    assert not (tmp_path / "owned").exists()
    arguments = (tmp_path / "arguments").read_text()
    for name, value in signed_headers(body, timestamp=NOW).items():
        assert f"{name}: {value}".lower() in arguments.lower()
