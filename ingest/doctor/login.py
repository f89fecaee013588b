"""The log-in with an OIDC provider: whether the settings are whole, and whether it can work."""

import asyncio
import time
from collections.abc import Iterator

from ingest.console.auth.oidc import configuration
from ingest.console.auth.oidc.configuration import Configuration
from ingest.console.auth.oidc.problems import LoginFailed, ProviderAway
from ingest.console.auth.request_info import OIDC_CALLBACK
from ingest.doctor.findings import Finding, error, listed, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError

BAD_OIDC = error(
    "bad_oidc", "Correct the settings as docs/oidc.md says: the console does not start."
)
OIDC_REFUSES = error(
    "oidc_refuses",
    "Compare issuer, client and secret with what the provider shows: nobody can log in with it.",
)
OIDC_AWAY = warning(
    "oidc_away",
    "Start it, or let this machine reach it. Passwords, tokens and sessions work meanwhile.",
)
OIDC = note("oidc")


def check(setup: Setup) -> Iterator[Finding]:
    """Read the settings, and ask the provider for itself and whether it knows the console."""
    try:
        configured = configuration.read(setup.settings)
    except SettingsError as problem:
        yield BAD_OIDC.found(str(problem))
        return
    if configured is None:
        return
    from ingest.console.auth.oidc.provider import Provider  # an extra

    provider = Provider(configured, clock=time.time)
    try:
        asyncio.run(provider.check(_callback(configured, setup)))
    except ProviderAway as problem:
        yield OIDC_AWAY.found(f"{configured.issuer}: {problem}")
    except LoginFailed as problem:
        yield OIDC_REFUSES.found(f"{configured.issuer}: {problem}")
    else:
        yield OIDC.found(f"People log in with {configured.title}: {_roles(configured)}.")


def _callback(configured: Configuration, setup: Setup) -> str:
    loaded = setup.settings
    origin = configured.console_url or f"http://{loaded.console_host}:{loaded.console_port}"
    return origin + OIDC_CALLBACK


def _roles(configured: Configuration) -> str:
    roles = (("operators", configured.operators), ("viewers", configured.viewers))
    return " and ".join(
        f"{listed(sorted(values))} in {configured.role_claim} are {role}"
        for role, values in roles
        if values
    )
