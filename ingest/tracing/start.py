"""The switch: nothing of OpenTelemetry is imported before it is known to be wanted."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ingest.errors import SettingsError
from ingest.settings import Settings

if TYPE_CHECKING:
    from ingest.tracing.requests import RequestTraces
    from ingest.tracing.spans import Tracing

MISSING = (
    "INGEST_TRACES: OpenTelemetry is not installed: pip install 'webhook-ingest[otel]',"
    " or unset it."
)
_NEEDED = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check(settings: Settings) -> None:
    """Check that what the settings want can be had, without starting it.

    Raises:
        SettingsError: OpenTelemetry is not installed, or is told what it cannot do.
    """
    if not settings.traces:
        return
    if not all(map(_is_installed, _NEEDED)):
        raise SettingsError(MISSING, reason="otel_missing")
    from ingest.tracing import environment

    environment.check()


def tracing(settings: Settings, process: str) -> "Tracing | None":
    """Return what makes and sends the spans of a process; None: traces are off.

    A thread starts, so a process that forks calls this in each fork.

    Args:
        settings: of this process.
        process: its kind, `receiver`, `worker` or `relay`.

    Raises:
        SettingsError: as `check` does.
    """
    check(settings)
    if not settings.traces:
        return None
    from ingest.tracing.spans import Tracing

    return Tracing(process)


def requests(settings: Settings) -> "RequestTraces | None":
    """Return what traces the requests of a receiver, likewise."""
    made = tracing(settings, "receiver")
    if made is None:
        return None
    from ingest.tracing.requests import RequestTraces

    return RequestTraces(made)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of a package above it
        return False
