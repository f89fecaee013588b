"""The same delivery again, as a command: signed afresh, for a receiver to try things on."""

import base64
import shlex

from ingest.sources.base import Source


def command(url: str, source: Source, body: bytes, *, now: int) -> str:
    """Return a shell command that posts `body`, signed at `now` (Unix seconds).

    It is good for as long as the receiver's tolerance. The body goes through base64, so that no
    shell touches its bytes.
    """
    headers = source.sign(body, now=now)
    given = " \\\n  ".join(
        f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()
    )
    spelled = base64.b64encode(body).decode()
    return (
        f"printf %s {shlex.quote(spelled)} | base64 -d |\n"
        f"curl -sS {shlex.quote(url)} \\\n  {given} \\\n  --data-binary @-"
    )
