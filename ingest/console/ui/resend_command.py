"""The shell command that sends a delivery again, with a new signature, to try out a receiver."""

import base64
import shlex
from collections.abc import Sequence

from ingest.sources.base import Headers, Source

_VARIABLE = '"${SECRET:?is the secret of the source}"'


def command(url: str, source: Source, body: bytes, headers: Headers, *, now: int) -> str:
    """Return a shell command that posts a stored `body`, signed at `now` (Unix seconds).

    It is the same event: what names it in `headers`, which were kept with the body, is sent again.

    It works for as long as the receiver's tolerance. The body is encoded in base64, so that no
    shell changes its bytes. A sender that sends its secret itself has the variable `SECRET` for it:
    the page shows it to nobody.

    Raises:
        CannotSign, InvalidSignature: nothing signs this body, or what is signed was not kept.
    """
    signed = source.sign_again(body, headers, now=now)
    options = " \\\n  ".join(
        f"-H {_header(f'{name}: {value}', source.secrets)}" for name, value in signed.items()
    )
    encoded = base64.b64encode(body).decode()
    return (
        f"printf %s {shlex.quote(encoded)} | base64 -d |\n"
        f"curl -sS {shlex.quote(url)} \\\n  {options} \\\n  --data-binary @-"
    )


def _header(line: str, secrets: Sequence[str]) -> str:
    """Return a header as a shell's word, with a variable instead of a secret."""
    for secret in secrets:
        if line.endswith(f": {secret}"):
            return shlex.quote(line.removesuffix(secret)) + _VARIABLE
    return shlex.quote(line)
