"""The shell command that sends a delivery again, with a new signature, to try out a receiver."""

import base64
import shlex

from ingest.sources.base import Source


def command(url: str, source: Source, body: bytes, *, now: int) -> str:
    """Return a shell command that posts `body`, signed at `now` (Unix seconds).

    It works for as long as the receiver's tolerance. The body is encoded in base64, so that no
    shell changes its bytes.
    """
    headers = source.sign(body, now=now)
    options = " \\\n  ".join(
        f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()
    )
    encoded = base64.b64encode(body).decode()
    return (
        f"printf %s {shlex.quote(encoded)} | base64 -d |\n"
        f"curl -sS {shlex.quote(url)} \\\n  {options} \\\n  --data-binary @-"
    )
