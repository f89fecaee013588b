"""Log-ins that a browser has begun and not finished: they wait in its signed session.

Each has a state and a nonce of its own, so that no answer counts that this browser did not ask for,
and the verifier of its PKCE challenge, without which nobody else can use its code.
"""

import base64
import json
from collections.abc import Callable, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

LIFETIME_S = 600
"""Longer than somebody needs for a password, a second factor and a consent."""
_KEY = "logins"
_LONGEST_TARGET = 1_500
_MOST_CHARACTERS = 2_400
"""A cookie holds 4,096 bytes, and base64 makes four of three."""
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A log-in that was begun."""

    state: str
    nonce: str
    verifier: str
    began: int
    """Unix time in seconds."""
    target: str
    """Where it leads, on this console."""


def begin(
    session: MutableMapping[str, Any],
    target: str,
    *,
    now: float,
    random: Callable[[int], bytes],
) -> Pending:
    """Begin a log-in that leads to `target`. Of too many, in as many tabs, the oldest is forgotten.

    Args:
        session: of the browser.
        target: a path of this console; a very long one is forgotten.
        now: Unix time in seconds.
        random: returns that many random bytes.
    """
    state, nonce, verifier = (_text(random(_RANDOM_BYTES)) for _ in range(3))
    begun = Pending(
        state=state,
        nonce=nonce,
        verifier=verifier,
        began=int(now),
        target=target if len(target) <= _LONGEST_TARGET else "/",
    )
    waiting = [*session.get(_KEY, ()), asdict(begun)]
    while len(json.dumps(waiting)) > _MOST_CHARACTERS:
        del waiting[0]
    session[_KEY] = waiting
    return begun


def take(session: MutableMapping[str, Any], state: str, *, now: float) -> Pending | None:
    """Return the log-in of a state, which then is known no more; None: it is unknown, or old."""
    waiting = [Pending(**login) for login in session.get(_KEY, ())]
    session[_KEY] = [asdict(login) for login in waiting if login.state != state]
    for login in waiting:
        if login.state == state and now - login.began < LIFETIME_S:
            return login
    return None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
