"""What people are shown of the destinations: never a secret, and of an address its host alone."""

from collections.abc import Iterator, Mapping, Sequence
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


def explain(destination: Destination, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what a description means, in sentences."""
    types = _listed(destination.types)
    of = f"the sources {_listed(destination.sources)}" if destination.sources else "all sources"
    what = "as they were received" if destination.body == "raw" else "as JSON"
    yield f"Events of {types}, of {of}, are posted to {host(destination, environ)} {what}."
    yield f"They are signed with the secrets in {destination.secrets}."
    if destination.allow_private:
        yield "It may be in a private network."
    if destination.url is not None and destination.url.startswith("http:"):
        yield "What is sent is not encrypted."
    yield (
        f"A worker process sends {destination.threads} at once, and waits"
        f" {destination.timeout_s:g} s for each answer."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def hosts(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the host of each destination, by the name of its processor."""
    return {destination.name: host(destination, environ) for destination in described(settings)}
