"""How the values of settings are written: lists, secrets, and what is no value of ours."""

import re

BOM = "\ufeff"

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
# What Kubernetes puts into every container's environment for a Service named `ingest`.
_KUBERNETES = re.compile(r"\A(?:tcp|udp|sctp)://[0-9A-Fa-f.:\[\]]+:\d{1,5}\Z")


def split(text: str) -> tuple[str, ...]:
    """Return the items of a list: separated by commas or lines, without the space around them."""
    lines = (line.strip().removesuffix(",") for line in text.splitlines() if line.strip())
    return tuple(item.strip() for line in lines for item in line.split(","))


def check_secret(secret: str, *, position: int, min_length: int) -> None:
    """Refuse what is hardly the secret that the sender has: it would answer 401 to everything.

    Raises:
        ValueError: with a sentence that names the position and shows nothing of the secret.
    """
    problem = _problem(secret, min_length)
    if problem is not None:
        raise ValueError(f"secret {position} {problem}")


def _problem(secret: str, min_length: int) -> str | None:
    if secret and (secret[0] in _QUOTES or secret[-1] in _QUOTES):
        return "is in quotes: take them away"
    if BOM in secret:
        return "begins with a byte order mark: save the file without one"
    if any(character.isspace() for character in secret):
        return "holds white space: put each secret on a line of its own"
    if not secret.isprintable():
        return "holds a control character"
    if len(secret) < min_length:
        return f"is shorter than {min_length} characters"
    return None


def is_of_kubernetes(value: object) -> bool:
    """Return whether a value is the address of a Service rather than a port that somebody set."""
    return isinstance(value, str) and _KUBERNETES.match(value) is not None
