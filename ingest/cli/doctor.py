"""`ingest doctor`: look at the whole set-up, and say what is wrong and what to do."""

import os
import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest.cli import output
from ingest.doctor import configuration, examination
from ingest.doctor.findings import Finding, Severity
from ingest.doctor.setup import Setup

_WIDTH = 80
_MARGIN = " " * 9


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Look at the whole set-up: say what is wrong with it, and what to do.

    The exit status is 1 if there is an error, which breaks a promise or stops work. It is 0 if
    there are warnings only.
    """
    findings = examination.by_severity(_findings())
    if json:
        output.as_json({"well": not _errors(findings), "findings": findings})
    else:
        output.line(report(findings))
    if _errors(findings):
        raise typer.Exit(1)


def report(findings: list[Finding]) -> str:
    """Return findings as text of 80 columns, with their slugs and advice, and their counts."""
    return "\n".join([*map(_in_words, findings), _summary(findings)])


def _findings() -> Iterator[Finding]:
    loaded, problems = configuration.load()
    yield from problems
    yield from configuration.variables(os.environ)
    if loaded is not None:
        yield from examination.examine(Setup(settings=loaded, clock=lambda: datetime.now(UTC)))


def _in_words(finding: Finding) -> str:
    """Return a finding as lines of 80 columns; its slug stands at the end of its sentence."""
    label = "ok" if finding.severity is Severity.NOTE else finding.severity.upper()
    lines = _filled(f"{finding.sentence} [{finding.slug}]", first=f"{label:<9}")
    if finding.advice is not None:
        lines += _filled(finding.advice, first=f"{_MARGIN}-> ", rest=f"{_MARGIN}   ")
    return "\n".join(lines)


def _filled(text: str, *, first: str, rest: str = _MARGIN) -> list[str]:
    return textwrap.wrap(
        output.printable(text),
        width=_WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(findings: list[Finding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    errors = output.number_of(counts[Severity.ERROR], "error")
    return f"{errors}, {output.number_of(counts[Severity.WARNING], 'warning')}."


def _errors(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)
