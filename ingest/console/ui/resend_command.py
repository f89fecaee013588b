"""The shell command that sends a delivery again, with a new signature, to try out a receiver."""

import base64
import shlex

from ingest.sources.base import Headers, Source


def command(url: str, source: Source, body: bytes, headers: Headers, *, now: int) -> str:
    """Return a shell command that posts a stored `body`, signed at `now` (Unix seconds).

    It is the same event: what names it in `headers`, which were kept with the body, is sent again.

    It works for as long as the receiver's tolerance. The body is encoded in base64, so that no
    shell changes its bytes.
    """
    signed = source.sign_again(body, headers, now=now)
    options = " \\\n  ".join(
        f"-H {shlex.quote(f'{name}: {value}')}" for name, value in signed.items()
    )
    encoded = base64.b64encode(body).decode()
    return (
        f"printf %s {shlex.quote(encoded)} | base64 -d |\n"
        f"curl -sS {shlex.quote(url)} \\\n  {options} \\\n  --data-binary @-"
    )
