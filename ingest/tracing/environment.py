"""What the standard `OTEL_…` variables say, as far as OpenTelemetry does not read them itself.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from collections.abc import Mapping

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from ingest.errors import SettingsError

DEFAULT_RATIO = 0.01
"""Of the requests without a trace context, where no sampler is named: at 10,000 requests a second
100 are traced, with about ten spans each."""
QUEUE_SIZE = 2_048
"""Spans that wait to be sent, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise: its own default."""
_SAMPLER, _ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
_SAMPLERS = tuple(
    f"{prefix}{name}"
    for prefix in ("parentbased_", "")
    for name in ("traceidratio", "always_on", "always_off")
)
_QUEUE = "OTEL_BSP_MAX_QUEUE_SIZE"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"


def check() -> None:
    """Check what can be checked before anything is sent.

    Raises:
        SettingsError: a variable asks for what is not there, or for nonsense.
    """
    for protocol in _PROTOCOLS:
        if os.environ.get(protocol, _HTTP) != _HTTP:
            raise _bad(protocol, f"only {_HTTP} is spoken")
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        raise _bad("OTEL_TRACES_EXPORTER", "only otlp is there; INGEST_TRACES=false sends nothing")
    sampler_name = os.environ.get(_SAMPLER)
    if sampler_name and sampler_name not in _SAMPLERS:
        raise _bad(_SAMPLER, f"must be one of {', '.join(_SAMPLERS)}")
    ratio(os.environ)
    queue_size(os.environ)


def sampler() -> Sampler:
    """Return what decides which requests are traced."""
    if os.environ.get(_SAMPLER):
        return TracerProvider(shutdown_on_exit=False).sampler  # the one that it reads there
    return ParentBased(TraceIdRatioBased(ratio(os.environ)))


def ratio(environ: Mapping[str, str]) -> float:
    """Return which part of the requests is traced. Raises SettingsError: it is no ratio."""
    text = environ.get(_ARGUMENT) or str(DEFAULT_RATIO)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise _bad(_ARGUMENT, "must be a number from 0 to 1")
    return value


def queue_size(environ: Mapping[str, str]) -> int:
    """Return how many spans may wait. Raises SettingsError: it is no number."""
    text = environ.get(_QUEUE) or str(QUEUE_SIZE)
    if not text.isdecimal() or int(text) == 0:
        raise _bad(_QUEUE, "must be a whole number greater than 0")
    return int(text)


def names_service(environ: Mapping[str, str]) -> bool:
    """Return whether the environment says what the service is called."""
    attributes = environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    named = any(pair.partition("=")[0].strip() == "service.name" for pair in attributes)
    return bool(environ.get("OTEL_SERVICE_NAME")) or named


def _bad(name: str, why: str) -> SettingsError:
    return SettingsError(f"{name}: {why}.", reason="bad_setting")
