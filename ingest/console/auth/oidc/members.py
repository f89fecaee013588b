"""Who somebody is by what a provider claims of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.console.auth.oidc.configuration import Configuration
from ingest.console.auth.roles import Role

_LONGEST_NAME = 64
_LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, section 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody whom the provider vouches for."""

    subject: str
    """Who it is, for ever: `sub`. The name may change."""
    name: str
    role: Role | None
    """None: they have no business here."""


def member(claims: Mapping[str, Any], configuration: Configuration) -> Member:
    """Return whom verified claims are of."""
    subject = str(claims["sub"])[:_LONGEST_SUBJECT]
    names = (claims.get(claim) for claim in (configuration.name_claim, "preferred_username"))
    name = next((shown for shown in map(_printable, names) if shown), subject)
    return Member(subject=subject, name=name[:_LONGEST_NAME], role=_role(claims, configuration))


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by its path (`realm_access.roles`); None: it is not there.

    Names that are addresses (`https://example.org/roles`) hold dots and are no paths.
    """
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _role(claims: Mapping[str, Any], configuration: Configuration) -> Role | None:
    values = _values(claims, configuration.role_claim)
    if values & configuration.operators:
        return Role.OPERATOR
    return Role.VIEWER if values & configuration.viewers else None


def _values(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the values of a claim. An address that nobody verified could be anybody's."""
    value = claim(claims, name)
    if name == "email" and claims.get("email_verified") is not True:
        return frozenset()
    values = value if isinstance(value, list) else [value]
    return frozenset(one for one in values if isinstance(one, str))


def _printable(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(character for character in text if character.isprintable()).strip()
