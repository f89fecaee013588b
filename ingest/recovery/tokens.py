"""The token of an API, from where a description says. No message holds anything of it."""

import base64
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ingest.recovery.base import RecoveryFailed

_APP_TOKEN_S = 540
"""GitHub takes ten minutes at most."""
_CLOCKS_DIFFER_S = 60
"""How far GitHub advises to date a token back."""


def read(variable: str | None, file: Path | None) -> str:
    """Return the text of a file, or else of a variable of the environment.

    Raises:
        RecoveryFailed: there is none.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise RecoveryFailed(f"{file}: the token cannot be read.", reason="no_token") from None
        where = str(file)
    else:
        text, where = os.environ.get(variable or "", "").strip(), variable or "recover.token_env"
    if not text:
        raise RecoveryFailed(f"There is no token: set {where}.", reason="no_token")
    return text


def plain(text: str) -> str:
    """Return a token that is sent as it is.

    Raises:
        RecoveryFailed: no header can hold it.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise RecoveryFailed(
            "The token holds white space, or a character that is not ASCII.", reason="bad_token"
        )
    return text


def of_app(app: str, key: str, *, now: float) -> str:
    """Return the token with which a GitHub app speaks for itself: a JSON Web Token (RFC 7519).

    Args:
        app: its client id, or its number.
        key: its private key, in PEM.
        now: Unix time in seconds.

    Raises:
        RecoveryFailed: the key is none.
    """
    try:
        private = load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, RSAPrivateKey):
        raise RecoveryFailed(
            "The app's private key is no RSA key in PEM without a passphrase.", reason="bad_token"
        )
    claims = {"iat": int(now) - _CLOCKS_DIFFER_S, "exp": int(now) + _APP_TOKEN_S, "iss": app}
    signed = f"{_encoded({'alg': 'RS256', 'typ': 'JWT'})}.{_encoded(claims)}"
    signature = private.sign(signed.encode(), padding.PKCS1v15(), SHA256())
    return f"{signed}.{_base64url(signature)}"


def _encoded(fields: dict[str, object]) -> str:
    return _base64url(json.dumps(fields, separators=(",", ":")).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
