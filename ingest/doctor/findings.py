"""What a check finds: a slug, how bad it is, a sentence, and what to do."""

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How bad a finding is, the worst first."""

    ERROR = "error"
    """It breaks a promise, or it stops work."""
    WARNING = "warning"
    """Nothing is broken by it yet."""
    NOTE = "note"
    """A fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. It holds no secret, no body and no phone number."""

    slug: str
    severity: Severity
    sentence: str
    advice: str | None
    """What to do, in the imperative; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of finding."""

    slug: str
    severity: Severity
    advice: str | None = None

    def found(self, sentence: str, *, advice: str | None = None) -> Finding:
        """Return a finding of this kind; `advice` replaces the usual one."""
        return Finding(
            slug=self.slug,
            severity=self.severity,
            sentence=sentence,
            advice=advice or self.advice,
        )


def error(slug: str, advice: str) -> Kind:
    """Return a kind of finding that breaks a promise or stops work."""
    return Kind(slug=slug, severity=Severity.ERROR, advice=advice)


def warning(slug: str, advice: str) -> Kind:
    """Return a kind of finding that breaks nothing yet."""
    return Kind(slug=slug, severity=Severity.WARNING, advice=advice)


def note(slug: str) -> Kind:
    """Return a kind of fact."""
    return Kind(slug=slug, severity=Severity.NOTE)


def listed(items: list[str]) -> str:
    """Return items as a list in a sentence: `a, b and c`."""
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
