"""What people are shown of the destinations: never a secret, and of an address its host alone."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from ingest.destinations import files
from ingest.destinations.description import Destination
from ingest.secret_references import SecretMissing
from ingest.settings import Settings
from ingest.sources import registry


def described(settings: Settings) -> tuple[Destination, ...]:
    """Return the destinations that the settings' files describe.

    Raises:
        SettingsError: a description cannot be used.
    """
    return files.read(settings.source_files, registry.classes())


def host(destination: Destination, environ: Mapping[str, str]) -> str:
    """Return the host that a destination sends to, with its port; or where its address is, if this
    process has not been given it."""
    try:
        return urlsplit(destination.address.read(environ)).netloc.rpartition("@")[2] or "?"
    except (SecretMissing, ValueError):
        return f"({destination.address})"


def hosts(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the host of each destination, by the name of its processor."""
    return {destination.name: host(destination, environ) for destination in described(settings)}
