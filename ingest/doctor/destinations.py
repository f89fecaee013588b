"""The destinations: whether their addresses and secrets are there."""

import os
from collections.abc import Iterator

from ingest.destinations import overview, sending
from ingest.doctor.findings import Finding, error, listed, note
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError

UNUSABLE = error(
    "destination_unusable", "Put it in its place, or correct it: no worker starts without."
)
DESTINATIONS = note("destinations")


def check(setup: Setup) -> Iterator[Finding]:
    """Read addresses and secrets; connect nowhere: `ingest destinations test` does."""
    described = overview.described(setup.settings)
    for destination in described:
        try:
            sending.target(destination, os.environ)
        except SettingsError as problem:
            yield UNUSABLE.found(str(problem))
    if described:
        hosts = [overview.host(destination, os.environ) for destination in described]
        yield DESTINATIONS.found(f"Events are forwarded to {listed(hosts)}.")
