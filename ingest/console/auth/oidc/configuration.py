"""What the settings say of OpenID Connect: whether it is on, and whether they are whole."""

import hashlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

from ingest.errors import SettingsError
from ingest.settings import Settings

SECRET = "INGEST_OIDC_CLIENT_SECRET"  # noqa: S105 - the name of its variable
MISSING = (
    "INGEST_OIDC_ISSUER: authlib is not installed: pip install 'webhook-ingest[oidc]', or unset it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How people log in with a provider."""

    issuer: str
    title: str
    """What people know the provider by."""
    client_id: str
    client_secret: str = field(repr=False)
    scopes: str
    """With spaces between."""
    role_claim: str
    operators: frozenset[str]
    viewers: frozenset[str]
    name_claim: str
    session_s: float
    console_url: str | None
    """The console's address as browsers know it; None: what a browser asks for."""
    behind_tls: bool

    @property
    def fingerprint(self) -> str:
        """Return what changes with everything that gives a role: sessions of before then end."""
        parts = (
            *(self.issuer, self.client_id, self.role_claim),
            *(repr(sorted(values)) for values in (self.operators, self.viewers)),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def read(settings: Settings) -> Configuration | None:
    """Return how people log in with a provider; None: they do not.

    Raises:
        SettingsError: a setting is missing, or the library is not installed.
    """
    if settings.oidc_issuer is None:
        _refuse_half(settings)
        return None
    if find_spec("authlib") is None:
        raise SettingsError(MISSING, reason="oidc_missing")
    if settings.oidc_client_id is None or settings.oidc_client_secret is None:
        raise _unusable("INGEST_OIDC_CLIENT_ID and INGEST_OIDC_CLIENT_SECRET must be set with it")
    if not settings.oidc_operators and not settings.oidc_viewers:
        raise _unusable(
            "INGEST_OIDC_OPERATORS or INGEST_OIDC_VIEWERS must be set with it: nobody would get in"
        )
    if "openid" not in settings.oidc_scopes.split():
        raise _unusable("INGEST_OIDC_SCOPES must hold openid")
    return Configuration(
        issuer=settings.oidc_issuer,
        title=settings.oidc_title or urlsplit(settings.oidc_issuer).hostname or "",
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret.get_secret_value(),
        scopes=settings.oidc_scopes,
        role_claim=settings.oidc_role_claim,
        operators=frozenset(settings.oidc_operators),
        viewers=frozenset(settings.oidc_viewers),
        name_claim=settings.oidc_name_claim,
        session_s=settings.oidc_session_s,
        console_url=settings.console_url,
        behind_tls=settings.console_tls_proxy,
    )


def _refuse_half(settings: Settings) -> None:
    """Raise SettingsError if something is set that has no effect without an issuer."""
    if settings.oidc_client_id is not None or settings.oidc_client_secret is not None:
        raise SettingsError(
            "INGEST_OIDC_CLIENT_ID and INGEST_OIDC_CLIENT_SECRET have no effect without"
            " INGEST_OIDC_ISSUER: set it, or unset them.",
            reason="bad_setting",
        )


def _unusable(problem: str) -> SettingsError:
    return SettingsError(f"INGEST_OIDC_ISSUER: {problem}.", reason="bad_setting")
