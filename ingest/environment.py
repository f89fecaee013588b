"""Report `INGEST_…` variables of the environment that are not settings, and settings ignored.

A typo in a variable's name has no effect and causes no error, so it is reported at the start.
Kubernetes injects a family of such variables into every container, one for each Service whose name
begins with `ingest`. Those are not typos. Values are never reported."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from ingest import setting_values
from ingest.settings import PREFIX, variables

_SIMILAR = 0.7
"""The least similarity, of 1, at which a setting is suggested; names without the prefix."""
_RENAMED = {
    "CONSOLE_BEHIND_TLS": "CONSOLE_TLS_PROXY",
    "CONSOLE_HOSTS": "CONSOLE_ALLOWED_HOSTS",
    "HINT_GRACE_S": "DISPATCH_GRACE_S",
    "HINT_TTL_S": "REDISPATCH_AFTER_S",
    "KEEP_BODIES_DAYS": "BODY_RETENTION_DAYS",
    "PARTIAL_MAX_BYTES": "MAX_INFLIGHT_BODY_BYTES",
    "RETRY_CAP_S": "RETRY_MAX_DELAY_S",
    "TIMEOUT_S": "ATTEMPT_TIMEOUT_S",
}
"""Settings that have another name since this release."""
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_A_SERVICE = re.compile(
    r"INGEST(?:_[A-Z0-9_]+)?_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A variable that is not a setting."""

    variable: str
    nearest: str | None
    """The setting that was probably meant, if there is one."""

    def __str__(self) -> str:
        meant = f": {self.nearest}?" if self.nearest else "."
        return f"{self.variable} is not a setting and has no effect{meant}"


def unknown(environ: Mapping[str, str]) -> list[Unknown]:
    """Return the variables that begin with `INGEST_` and are not settings, sorted by name."""
    known = [f"{PREFIX}{name}{ending}" for name in variables() for ending in ("", "_FILE")]
    return [
        Unknown(variable=name, nearest=_nearest(name.upper(), known))
        for name, value in sorted(environ.items())
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not _is_of_a_service(name, value)
    ]


def passed_over(environ: Mapping[str, str]) -> list[str]:
    """Return the settings whose variables Kubernetes set. Their values are ignored."""
    names = (f"{PREFIX}{name}" for name in variables())
    return [name for name in names if setting_values.is_of_kubernetes(environ.get(name))]


def report(environ: Mapping[str, str], log: BoundLogger) -> None:
    """Log the unknown and the ignored variables. Call it once, at the start of a process."""
    for stray in unknown(environ):
        log.warning("unknown_setting", variable=stray.variable, nearest=stray.nearest)
    for variable in passed_over(environ):
        log.info("setting_passed_over", variable=variable, reason="injected by Kubernetes")


def sentences(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each unknown variable, to print in a terminal."""
    yield from map(str, unknown(environ))


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the name that `name` has now, else the known name most similar to it. Names are
    compared without the prefix that all share."""
    without_prefix = name.removeprefix(PREFIX)
    if without_prefix in _RENAMED:
        return PREFIX + _RENAMED[without_prefix]
    bare = [other.removeprefix(PREFIX) for other in known]
    similar = difflib.get_close_matches(without_prefix, bare, n=1, cutoff=_SIMILAR)
    return f"{PREFIX}{similar[0]}" if similar else None


def _is_of_a_service(name: str, value: str) -> bool:
    return _OF_A_SERVICE.fullmatch(name) is not None or (
        name.endswith("_PORT") and setting_values.is_of_kubernetes(value)
    )
