"""What is asked of a provider: OpenID Connect Core 1.0 with the code flow, PKCE and a nonce.

Its metadata and keys are read when they are needed, and kept for some minutes. A token whose key is
not among them has them read again once: providers change their keys.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from authlib.common.urls import add_params_to_uri
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from ingest.console.auth.oidc import problems
from ingest.console.auth.oidc.configuration import Configuration
from ingest.console.auth.oidc.members import Member, claim, member
from ingest.console.auth.oidc.pending import Pending

TIMEOUT_S = 5.0
"""The longest that an answer of the provider is waited for."""
KEPT_S = 600.0
"""How long its metadata and keys are believed."""
CLOCK_SKEW_S = 60
"""How far its clock may be off."""
_DISCOVERY = "/.well-known/openid-configuration"
# No HMAC: its key would be the client's secret, which proves nothing of the provider. No `none`.
_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_KEY_TYPES = ("RSA", "EC", "OKP")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the provider says of itself."""

    metadata: Mapping[str, Any]
    keys: KeySet
    at: float


class Provider:
    """A provider, and this console as its client."""

    def __init__(self, configuration: Configuration, *, clock: Callable[[], float]) -> None:
        """`clock` returns Unix time in seconds."""
        self._configuration = configuration
        self._clock = clock
        self._known: _Known | None = None

    async def login_address(self, begun: Pending, callback: str) -> str:
        """Return where a browser logs in, and is sent to `callback` from.

        Raises:
            LoginFailed: the provider does not answer, or is not what it should be.
        """
        async with self._client(callback) as client:
            known = await self._read(client)
            address, _state = client.create_authorization_url(
                known.metadata["authorization_endpoint"],
                state=begun.state,
                nonce=begun.nonce,
                code_verifier=begun.verifier,
            )
            return str(address)

    async def member(self, answer: Mapping[str, str], begun: Pending, callback: str) -> Member:
        """Return whom the provider vouches for.

        Args:
            answer: what the browser brought back from there, of the state of `begun`.
            begun: the log-in that this browser began.
            callback: where it was sent from there.

        Raises:
            LoginFailed: it vouches for nobody, does not answer, or what it says is not proven.
        """
        async with self._client(callback) as client:
            known = await self._read(client)
            self._check_sender(answer, known)
            if "error" in answer:
                raise problems.refused(self._title, answer["error"])
            token = await _exchange(client, known, answer.get("code", ""), begun.verifier)
            claims = await self._verified(client, known, token, begun.nonce)
            return member(await self._completed(client, known, claims), self._configuration)

    async def logout_address(self, back: str) -> str:
        """Return where the provider ends its session; `back` itself if it says no place.

        Raises:
            LoginFailed: it does not answer.
        """
        async with self._client(back) as client:
            known = await self._read(client)
        place = known.metadata.get("end_session_endpoint")
        if not isinstance(place, str):
            return back
        parameters = {
            "client_id": self._configuration.client_id,
            "post_logout_redirect_uri": back,
        }
        return str(add_params_to_uri(place, parameters.items()))

    async def check(self, callback: str) -> None:
        """Ask the provider for itself, and whether it knows this client: with a code of nobody's.

        Raises:
            LoginFailed: it does not answer, is not what it should be, or does not know the client.
        """
        async with self._client(callback) as client:
            known = await self._read(client)
            try:
                await _exchange(client, known, "a-code-of-nobody", "v" * 43)
            except OAuthError as error:
                if error.error in ("invalid_client", "unauthorized_client"):
                    raise

    @property
    def _title(self) -> str:
        return self._configuration.title

    @asynccontextmanager
    async def _client(self, callback: str) -> AsyncIterator[AsyncOAuth2Client]:
        """Yield the client. Raises LoginFailed for whatever goes wrong with it."""
        try:
            async with AsyncOAuth2Client(
                self._configuration.client_id,
                self._configuration.client_secret,
                scope=self._configuration.scopes,
                redirect_uri=callback,
                code_challenge_method="S256",
                timeout=TIMEOUT_S,
            ) as client:
                yield client
        except OAuthError as error:
            raise problems.refused(self._title, str(error.error)) from None
        except httpx2.RequestError:
            raise problems.away(self._title) from None
        except httpx2.HTTPStatusError as error:
            if error.response.is_server_error:
                raise problems.away(self._title) from None
            what = f"it answers {error.response.status_code} to {error.request.url.path}"
            raise problems.unfit(self._title, what) from None
        except ExpiredTokenError:
            raise problems.untrusted(self._title, "by its clock it is too old") from None
        except JoseError as error:
            raise problems.untrusted(self._title, error.error.replace("_", " ")) from None
        except (AttributeError, KeyError, TypeError, ValueError, httpx2.InvalidURL):
            raise problems.unfit(self._title, "it does not answer as OpenID Connect says") from None

    async def _read(self, client: AsyncOAuth2Client, *, anew: bool = False) -> _Known:
        """Return what the provider says of itself."""
        known = self._known
        if known is not None and not anew and self._clock() - known.at < KEPT_S:
            return known
        place = self._configuration.issuer.rstrip("/") + _DISCOVERY
        metadata = await self._get(client, place, as_nobody=True)
        if metadata["issuer"] != self._configuration.issuer:
            raise problems.unfit(
                self._title, "it calls itself by another address than INGEST_OIDC_ISSUER"
            )
        keys = await self._get(client, metadata["jwks_uri"], as_nobody=True)
        self._known = _Known(
            metadata=metadata,
            keys=KeySet.import_key_set({"keys": [key for key in keys["keys"] if _signs(key)]}),
            at=self._clock(),
        )
        return self._known

    async def _get(
        self, client: AsyncOAuth2Client, address: str, *, as_nobody: bool = False
    ) -> Mapping[str, Any]:
        """Return the document of an address, with the token that was exchanged last."""
        response = await client.request("GET", address, withhold_token=as_nobody)
        response.raise_for_status()
        document = response.json()
        if not isinstance(document, dict):
            raise TypeError
        return document

    def _check_sender(self, answer: Mapping[str, str], known: _Known) -> None:
        """Raise LoginFailed if another provider sent the browser back (RFC 9207)."""
        is_said = known.metadata.get("authorization_response_iss_parameter_supported") is True
        sender = answer.get("iss", None if is_said else self._configuration.issuer)
        if sender != self._configuration.issuer:
            raise problems.untrusted(self._title, "another provider has answered")

    async def _verified(
        self, client: AsyncOAuth2Client, known: _Known, token: Mapping[str, Any], nonce: str
    ) -> Mapping[str, Any]:
        """Return the claims of an ID token that the provider signed for this log-in."""
        try:
            decoded = self._decoded(known, token["id_token"])
        except (InvalidKeyIdError, BadSignatureError):
            decoded = self._decoded(await self._read(client, anew=True), token["id_token"])
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            {
                "iss": {"essential": True, "value": self._configuration.issuer},
                "aud": {"essential": True, "value": self._configuration.client_id},
            },
            {
                "nonce": nonce,
                "client_id": self._configuration.client_id,
                "access_token": token["access_token"],
            },
        )
        claims.validate(now=int(self._clock()), leeway=CLOCK_SKEW_S)
        return dict(claims)

    def _decoded(self, known: _Known, token: str) -> jwt.Token:
        offered = known.metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        return jwt.decode(
            token, known.keys, algorithms=[name for name in _ALGORITHMS if name in offered]
        )

    async def _completed(
        self, client: AsyncOAuth2Client, known: _Known, claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the claims with those that the provider tells only when it is asked once more."""
        wanted = [self._configuration.role_claim, self._configuration.name_claim]
        if self._configuration.role_claim == "email":
            wanted.append("email_verified")
        place = known.metadata.get("userinfo_endpoint")
        if place is None or all(claim(claims, name) is not None for name in wanted):
            return claims
        more = await self._get(client, place)
        if more["sub"] != claims["sub"]:
            raise problems.untrusted(self._title, "its answers are of two persons")
        return {**more, **claims}


async def _exchange(
    client: AsyncOAuth2Client, known: _Known, code: str, verifier: str
) -> Mapping[str, Any]:
    """Return what a code is worth."""
    ways = known.metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    way = "client_secret_basic" if "client_secret_basic" in ways else "client_secret_post"
    token: Mapping[str, Any] = await client.fetch_token(
        known.metadata["token_endpoint"],
        auth=client.client_auth(way),
        grant_type="authorization_code",
        code=code,
        code_verifier=verifier,
    )
    return token


def _signs(key: Mapping[str, Any]) -> bool:
    return key.get("kty") in _KEY_TYPES and key.get("use", "sig") == "sig"
