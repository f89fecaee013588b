"""Which sources there are: those of this package, of installed plugins, and of descriptions."""

import re
from collections.abc import Container, Iterator, Mapping
from functools import cache
from importlib import import_module, metadata
from pkgutil import iter_modules

from ingest.errors import SettingsError
from ingest.sources import operator, schedule
from ingest.sources.base import FieldPath, Source, SourceSettings

GROUP = "ingest.sources"
"""The entry-point group in which a plugin names its class, under its slug."""

_SLUG = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")

_OWN = (operator.SLUG, schedule.SLUG)
"""The sources of events that no sender sends."""


_described: dict[str, type[Source]] = {}


def use(described: Mapping[str, type[Source]]) -> None:
    """Make these the described sources of this process, instead of those before.

    Raises:
        SettingsError: one has the name of another source.
    """
    for slug in described:
        if slug in _coded() or slug in _OWN:
            raise _unusable(slug, "another source has this name")
    _described.clear()
    _described.update(described)


def classes() -> dict[str, type[Source]]:
    """Return every source's class by its slug.

    Raises:
        SettingsError: a plugin cannot be used, and why.
    """
    return _coded() | _described


@cache
def _coded() -> dict[str, type[Source]]:
    classes_by_slug: dict[str, type[Source]] = {}
    for slug, source_class in (*_built_in(), *_installed()):
        if slug in classes_by_slug or slug in _OWN:
            raise _unusable(slug, "another source has this name")
        classes_by_slug[slug] = source_class
    return classes_by_slug


def configured(settings: Mapping[str, SourceSettings]) -> dict[str, Source]:
    """Return every source by its slug, with its settings."""
    return {slug: source(settings[slug]) for slug, source in classes().items()}


def readers(settings: Mapping[str, SourceSettings]) -> dict[str, Source]:
    """Return what reads stored bodies: every source by its slug, and the runs of schedules."""
    return {**configured(settings), schedule.SLUG: schedule.Schedule()}


def receiving(settings: Mapping[str, SourceSettings], *, default: str) -> dict[str, Source]:
    """Return the sources that have a secret, which alone can be received.

    Args:
        settings: of each source.
        default: the slug of the source whose variable the error names.

    Raises:
        SettingsError: none has.
    """
    sources = {
        slug: source
        for slug, source in configured(settings).items()
        if source.secrets or not source.needs_secret()
    }
    if not sources:
        variable = classes()[default].variable("secrets")
        raise SettingsError(
            f"No webhook secret: set {variable} (newest first, separated by commas),"
            " or that of another source; `ingest sources` lists them.",
            reason="no_secret",
        )
    return sources


def entity_paths(kind: str, slugs: Container[str] | None = None) -> tuple[FieldPath, ...]:
    """Return where bodies name an entity of a kind: those of some sources, or of whatever source.
    What identifies a person is a contact too, of a source without a read model."""
    paths = (
        path
        for slug, source in classes().items()
        if slugs is None or slug in slugs
        for path in _entity_paths(source, kind)
    )
    return tuple(dict.fromkeys(paths))


def naming(kind: str) -> tuple[str, ...]:
    """Return the slugs of the sources whose bodies name entities of a kind, of which no read model
    is made; copies of their events among them."""
    slugs = tuple(
        slug
        for slug, source in classes().items()
        if source.read_model is None and _entity_paths(source, kind)
    )
    return (*slugs, operator.SLUG) if slugs else ()


def _entity_paths(source: type[Source], kind: str) -> tuple[FieldPath, ...]:
    persons = source.persons if kind == "contact" and source.read_model is None else ()
    return (*source.entities.get(kind, ()), *persons)


def _built_in() -> Iterator[tuple[str, type[Source]]]:
    """Yield the class of each sub-package of this package that names one `Plugin`."""
    for module in iter_modules(import_module(__package__).__path__):
        if module.ispkg:
            plugin = getattr(import_module(f"{__package__}.{module.name}"), "Plugin", None)
            if plugin is not None:
                yield module.name, plugin


def _installed() -> Iterator[tuple[str, type[Source]]]:
    for entry_point in metadata.entry_points(group=GROUP):
        slug = entry_point.name
        if not _SLUG.fullmatch(slug):
            raise _unusable(slug, "a name is lower-case letters, digits and dashes")
        try:
            source = entry_point.load()
        except Exception as error:
            raise _unusable(slug, f"{entry_point.value}: {type(error).__name__}: {error}") from None
        if not (isinstance(source, type) and issubclass(source, Source)):
            raise _unusable(slug, f"{entry_point.value} is no class of a source")
        if getattr(source, "slug", None) != slug:
            raise _unusable(slug, f"{entry_point.value} has another slug")
        yield slug, source


def _unusable(slug: str, why: str) -> SettingsError:
    return SettingsError(f"The source {slug} cannot be used: {why}.", reason="bad_source")
