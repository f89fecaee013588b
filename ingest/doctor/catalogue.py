"""Every kind of finding that asks for something, for the table of docs/operating.md."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from ingest.doctor.findings import Kind, Severity


def kinds() -> list[Kind]:
    """Return the errors, then the warnings, each by slug."""
    asking = {kind.slug: kind for kind in _kinds() if kind.severity is not Severity.NOTE}
    return sorted(asking.values(), key=lambda kind: (kind.severity, kind.slug))


def _kinds() -> Iterator[Kind]:
    """Yield the constants of the modules, and what they keep by reason or by kind of process."""
    package = import_module(__package__)
    for module in iter_modules(package.__path__):
        for value in vars(import_module(f"{__package__}.{module.name}")).values():
            if isinstance(value, Kind):
                yield value
            elif isinstance(value, dict):
                yield from (kind for kind in value.values() if isinstance(kind, Kind))
