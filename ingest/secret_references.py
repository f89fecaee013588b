"""Where a file of configuration says that a secret is: in a variable, or in a file of its own.

It is read each time that it is used, so that it can be changed without a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import SettingsError


class SecretMissing(SettingsError):
    """A secret is not where the configuration says."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is: in a variable, in a file, or, of an address that is none, here."""

    variable: str | None
    file: Path | None
    text: str | None = None

    def __str__(self) -> str:
        """Return the place, for people."""
        return self.variable or str(self.file or "the configuration")

    def read(self, environ: Mapping[str, str]) -> str:
        """Return the secret.

        Raises:
            SecretMissing: it is not there. The sentence names the place.
        """
        if self.text is not None:
            return self.text
        if self.file is None:
            value = environ.get(self.variable or "", "").strip()
            why = "it is not set"
        else:
            try:
                value, why = self.file.read_text(encoding="utf-8").strip(), "it is empty"
            except (OSError, ValueError) as error:
                value = ""
                why = (error.strerror if isinstance(error, OSError) else None) or "not UTF-8 text"
        if not value:
            raise SecretMissing(f"{self}: {why}.", reason="no_secret")
        return value
