"""Read and check the values of settings: lists, secrets, host names and addresses."""

import re
from urllib.parse import urlsplit

BOM = "\ufeff"

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_SPACE = " \t\r"
"""Removed around an item. A carriage return is among them, for lines that end with CR LF."""
_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?INGEST_[A-Z_]+[ \t]*=")
_HOST = re.compile(r"\*|(?:\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")
# The address that Kubernetes puts into every container's environment for a Service named `ingest`.
_KUBERNETES = re.compile(r"\A(?:tcp|udp|sctp)://[0-9A-Fa-f.:\[\]]+:\d{1,5}\Z")


def split(text: str) -> tuple[str, ...]:
    """Return the items of a list: separated by commas or lines, without the space around them."""
    return tuple(item for _, item in _numbered(text))


def parse_secrets(text: str, *, min_length: int) -> tuple[str, ...]:
    """Return the secrets of a list, each once. Refuse text that is unlikely to be a secret.

    With a wrong secret every request would be answered 401, without an error at the start.

    Raises:
        ValueError: a text is unlikely to be a secret. The message says where it is and does not
            quote it.
    """
    if text.strip(_SPACE + "\n").startswith(("[", "{")):
        raise ValueError("is JSON: write the secrets one a line, or with commas between them")
    has_lines = "\n" in text.strip()
    secrets = _numbered(text)
    for position, (line, secret) in enumerate(secrets, start=1):
        problem = _problem(secret, min_length)
        if problem is not None:
            where = f"line {line}: " if has_lines else ""
            raise ValueError(f"{where}secret {position} {problem}")
    return tuple(dict.fromkeys(secret for _, secret in secrets))


def _numbered(text: str) -> list[tuple[int, str]]:
    """Return the items of a list, each with the number of its line.

    Only a newline ends a line. `str.splitlines` splits at eight characters more.
    """
    return [
        (number, item.strip(_SPACE))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip(_SPACE)
        for item in line.strip(_SPACE).removesuffix(",").split(",")
    ]


def _problem(secret: str, min_length: int) -> str | None:
    """Return what is wrong with a secret; None: nothing."""
    if secret.startswith("#"):
        return "begins with #: there are no comments here, take the line away"
    if _ASSIGNMENT.match(secret):
        return "begins with the name of a variable: write the value only"
    if secret and (secret[0] in _QUOTES or secret[-1] in _QUOTES):
        return "is in quotes: take them away"
    if BOM in secret:
        return "begins with a byte order mark: save the file without one"
    if any(character.isspace() for character in secret):
        return "holds white space: put each secret on a line of its own"
    if not secret.isprintable():
        return "holds a control character"
    if not secret.isascii():
        return "holds a character that is not ASCII"
    if len(secret) < min_length:
        return f"is shorter than {min_length} characters"
    return None


def check_host(name: str) -> None:
    """Check that a Host header can have this name.

    Raises:
        ValueError: it cannot. The message does not quote it.
    """
    if not _HOST.fullmatch(name):
        raise ValueError("must be names of hosts without ports; `*.example.com` stands for all")


def is_of_kubernetes(value: object) -> bool:
    """Return whether Kubernetes set this value: a Service's address instead of a port."""
    return isinstance(value, str) and _KUBERNETES.match(value) is not None


def is_web_address(text: str) -> bool:
    """Return whether a text is an HTTP or HTTPS address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # an invalid port or IPv6 address
        return False
    return bool(
        text.isprintable()
        and " " not in text
        and parts.scheme in ("http", "https")
        and parts.hostname
        and port != 0
    )


def is_origin(text: str) -> bool:
    """Return whether a text is the address of a web server, without a path."""
    return is_web_address(text) and urlsplit(text).path in ("", "/") and _is_bare(text)


def is_safe_address(text: str) -> bool:
    """Return whether nobody on the way can read or change what is asked of an address."""
    if not is_web_address(text) or not _is_bare(text):
        return False
    parts = urlsplit(text)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def _is_bare(text: str) -> bool:
    return not {"?", "#", "@"} & set(text)
