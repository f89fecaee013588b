"""The alerts: whether their file can be read, and whether the channels can work."""

import os
import socket
from collections.abc import Iterator

from ingest.alerts import watch
from ingest.alerts.channels import check as channels
from ingest.doctor.findings import Finding, error, listed, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError

BAD_ALERTS = error(
    "bad_alerts",
    "Correct the file; `ingest alerts check FILE` says what it means. Relay and console do not"
    " start.",
)
CHANNEL_UNUSABLE = error(
    "alert_channel_unusable",
    "Put the secret in its place, or install the library: nobody is told by this channel.",
)
UNREACHABLE = warning(
    "alert_channel_unreachable",
    "Correct host and port, or let this machine reach it; `ingest alerts test` sends a message.",
)
NOBODY_TOLD = note("alerts_told_nobody")
TOLD = note("alerts_told")

_TIMEOUT_S = 2.0


def check(setup: Setup) -> Iterator[Finding]:
    """Read the file, look for the secrets, and connect to each host without sending anything."""
    try:
        configured = watch.load(setup.settings)
    except SettingsError as problem:
        yield BAD_ALERTS.found(str(problem))
        return
    if not configured.channels:
        yield NOBODY_TOLD.found("Alerts are shown in the console, and nobody is told: no channel.")
    else:
        yield TOLD.found(f"Alerts are told by {listed(list(configured.channels))}.")
    for sentence in channels.problems(configured, os.environ):
        yield CHANNEL_UNUSABLE.found(sentence)
    for part, host, port in channels.hosts(configured, os.environ):
        why = _why_unreachable(host, port)
        if why is not None:
            yield UNREACHABLE.found(f"{part}: {host}:{port} {why}.")


def _why_unreachable(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except socket.gaierror:
        return "does not resolve"
    except TimeoutError:
        return f"does not answer within {_TIMEOUT_S:g} s"
    except OSError as problem:
        return f"cannot be reached ({problem.strerror or type(problem).__name__})"
    return None
