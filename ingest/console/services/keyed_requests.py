"""Changes that carry an Idempotency-Key: whatever is sent again under the same key acts once
(draft-ietf-httpapi-idempotency-key-header-07).

The key is claimed before anything is done, in a transaction of its own, and gets its answer
afterwards. Between the two the process may be killed: then nobody knows whether the change was
made, and the key is refused until it is forgotten. So it is where a change failed after a part of
it was committed or sent. A change is never made twice.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from ingest import logs
from ingest.console.auth.identity import Identity
from ingest.console.services import lasting
from ingest.errors import IngestError, KeyInUse, KeyMisused
from ingest.resending import NotStored
from ingest.store import keyed_requests as store
from ingest.store.keyed_requests import Earlier

KEY = r'^"?[!#-~]{8,200}"?$'
"""A key: visible characters, with the quotes of a structured field or without. It says who may read
the answer, so it must not be guessed: a random UUID is a good one."""
_NONCE_BYTES = 12
_TOKEN_BYTES = 16

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest:
    """A change that somebody asks for under a key."""

    by: Identity
    key: str
    """As it was sent: it has the form of `KEY`."""
    content: bytes
    """What is asked for. The same request has the same content."""

    @property
    def secret(self) -> bytes:
        """Return the key without quotes."""
        return self.key.strip('"').encode()

    @property
    def digest(self) -> bytes:
        """Return what the key is stored as. Another author's same key is another key."""
        return _hmac(
            self.secret, b"key\0" + self.by.via.encode() + b"\0" + self.by.identity.encode()
        )

    @property
    def fingerprint(self) -> bytes:
        """Return what the request is stored as."""
        return _hmac(self.secret, b"request\0" + self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a change was answered with."""

    content: bytes
    is_replayed: bool
    """Whether an earlier request made the change."""


class KeyedRequests:
    """Makes each change once."""

    def __init__(self, engine: Engine, *, random: Callable[[int], bytes]) -> None:
        """`random` returns that many random bytes."""
        self._engine = engine
        self._random = random
        lasting.note_commits(engine)

    def new_token(self) -> str:
        """Return a token that nobody guesses, for the forms of a page."""
        return self._random(_TOKEN_BYTES).hex()

    def answer(self, request: KeyedRequest, act: Callable[[], bytes]) -> Answer:
        """Return the answer of `act`, or the one that it gave to the same request before.

        Raises:
            KeyMisused: the key was used for another request.
            KeyInUse: the request of the key runs, or nobody knows how it ended.
            Exception: whatever `act` raises. If nothing was committed or sent before, and the error
                says that nothing was changed, the key may be used again.
        """
        with self._engine.begin() as connection:
            earlier = store.claim(connection, request.digest, request.fingerprint)
        if earlier is not None:
            return Answer(content=_known(request, earlier), is_replayed=True)
        with lasting.watched() as done:
            try:
                content = act()
            except Exception as error:
                if not done.lasts and _changed_nothing(error):
                    self._give_back(request)
                raise
        self._keep(request, content)
        return Answer(content=content, is_replayed=False)

    def _keep(self, request: KeyedRequest, content: bytes) -> None:
        """Keep an answer. If the database is away, the sender has it all the same."""
        nonce = self._random(_NONCE_BYTES)
        sealed = nonce + _cipher(request).encrypt(nonce, content, None)
        try:
            with self._engine.begin() as connection:
                store.keep_answer(connection, request.digest, request.fingerprint, sealed)
        except SQLAlchemyError as error:
            log.warning("answer_not_kept", reason=type(error).__name__)

    def _give_back(self, request: KeyedRequest) -> None:
        try:
            with self._engine.begin() as connection:
                store.give_back(connection, request.digest, request.fingerprint)
        except SQLAlchemyError as error:
            log.warning("key_not_given_back", reason=type(error).__name__)


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key."""
    return re.fullmatch(KEY, text) is not None


def _known(request: KeyedRequest, earlier: Earlier) -> bytes:
    if not hmac.compare_digest(earlier.request, request.fingerprint):
        raise KeyMisused(
            "This Idempotency-Key was used for another request: use a new one for each change.",
            reason="idempotency_key_reused",
        )
    if earlier.answer is None:
        began = f"{earlier.began_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        raise KeyInUse(
            f"The request with this Idempotency-Key began at {began} and has no answer yet. If that"
            " is minutes ago, it failed in the middle, or its console was stopped: see in the audit"
            " log whether the change was made.",
            reason="idempotency_key_in_use",
        )
    nonce, sealed = earlier.answer[:_NONCE_BYTES], earlier.answer[_NONCE_BYTES:]
    return _cipher(request).decrypt(nonce, sealed, None)


def _changed_nothing(error: Exception) -> bool:
    """Return whether it is sure that a request which failed has changed nothing.

    It is not if the connection broke, perhaps at the commit, or if there is a bug. What it had
    committed before is not asked here.
    """
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) is not None
    is_known = isinstance(error, IngestError | PoolExhausted | TimeoutError)
    return is_known and not isinstance(error, NotStored)


def _cipher(request: KeyedRequest) -> AESGCM:
    return AESGCM(_hmac(request.secret, b"answer\0" + request.digest))


def _hmac(secret: bytes, of: bytes) -> bytes:
    return hmac.new(secret, of, hashlib.sha256).digest()
