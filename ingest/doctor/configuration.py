"""The settings: whether they can be used, and variables that have no effect."""

import platform
from collections.abc import Iterable, Iterator, Mapping

from ingest import __version__, environment, settings
from ingest.console.auth import credentials
from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError
from ingest.settings import Settings
from ingest.sources import registry
from ingest.sources.described.source import DescribedSource

BAD_SETTING = error(
    "bad_setting", "Correct the variable; docs/configuration.md lists all. No process starts."
)
BAD_DESCRIPTION = error(
    "bad_description",
    "Correct the file; `ingest sources check FILE` says what a description means.",
)
UNKNOWN_VARIABLE = warning(
    "unknown_variable", "Rename or unset it; docs/configuration.md lists all variables."
)
NO_SECRET = error("no_secret", "Set the secrets of a source: without one, no receiver starts.")
SOURCE_WITHOUT_SECRET = warning(
    "source_without_secret", "Set its secrets, or take its description out of INGEST_SOURCES."
)
BAD_CREDENTIALS = error(
    "bad_credentials",
    "Write the line anew with `ingest console create-user` or `create-token`:"
    " the console does not start.",
)
VERSION = note("version")


def load() -> tuple[Settings | None, list[Finding]]:
    """Return the settings, and what is wrong with them.

    If only a description is wrong, the settings are read without the described sources. None: they
    cannot be used, so that nothing further can be asked.
    """
    try:
        return settings.load(), []
    except SettingsError as problem:
        if problem.reason != "bad_source":
            return None, [BAD_SETTING.found(str(problem))]
        finding = BAD_DESCRIPTION.found(str(problem))
    try:
        return settings.load_undescribed(), [finding]
    except SettingsError as problem:
        return None, [finding, BAD_SETTING.found(str(problem))]


def variables(environ: Mapping[str, str]) -> list[Finding]:
    """Return the variables that begin as settings do and are none."""
    return [UNKNOWN_VARIABLE.found(str(stray)) for stray in environment.unknown(environ)]


def versions(_setup: Setup) -> Iterable[Finding]:
    """Say which code this is."""
    yield VERSION.found(f"This is version {__version__}, on Python {platform.python_version()}.")


def sources(setup: Setup) -> Iterator[Finding]:
    """Look for sources that have no secret."""
    loaded = setup.settings
    for slug, source in registry.configured(loaded.sources).items():
        is_deaf = source.needs_secret() and not source.secrets
        if is_deaf and isinstance(source, DescribedSource):
            yield SOURCE_WITHOUT_SECRET.found(
                f"The source {slug} is described and has no secret ({source.variable('secrets')}):"
                " its requests are answered 404."
            )
    try:
        registry.receiving(loaded.sources, default=loaded.default_source)
    except SettingsError as problem:
        yield NO_SECRET.found(str(problem))


def console(setup: Setup) -> Iterator[Finding]:
    """Read the console's users and tokens."""
    loaded = setup.settings
    for parse, secret in (
        (credentials.parse_users, loaded.console_users),
        (credentials.parse_tokens, loaded.console_tokens),
    ):
        try:
            parse(secret.get_secret_value() if secret else None)
        except SettingsError as problem:
            yield BAD_CREDENTIALS.found(str(problem))
