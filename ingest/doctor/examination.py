"""Run the checks, each for a bounded time, and order what they find."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from ingest.doctor import (
    addresses,
    alerts,
    certificates,
    clocks,
    configuration,
    connections,
    database,
    destinations,
    disk,
    encryption,
    login,
    partitions,
    pooler,
    processes,
    processors,
    redis,
    schema,
)
from ingest.doctor.findings import Finding, Severity, warning
from ingest.doctor.setup import Setup
from ingest.store import causes

TIMED_OUT = warning("check_timed_out", "Look at the server that is asked, and try again.")
FAILED = warning("check_failed", "See to the errors first; if there is none, report a bug.")

BOUND_S = 25.0
"""The longest time of one check."""
_ORDER = list(Severity)

Check = Callable[[Setup], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Step:
    """A check, what it is about, and what is asked only if it finds no error."""

    about: str
    check: Check
    then: tuple["Step", ...] = ()


_OF_THE_SCHEMA = (
    Step("the processes", processes.alive),
    Step("the queues", processes.consumed),
    Step("the partitions", partitions.check),
    Step("the keys of bodies", encryption.keys),
    Step("the clocks of the receivers", clocks.of_receivers),
    Step("the clocks of the senders", clocks.of_senders),
    Step("the limits of connections", connections.check),
)
_OF_THE_DATABASE = (
    Step("the durability of commits", database.durability),
    Step("the pooler", pooler.mode),
    Step("the database's clock", clocks.of_database),
    Step("the disk", disk.check),
    Step("the privileges", schema.lacking),
    Step("the schema", schema.revision, then=_OF_THE_SCHEMA),
)
STEPS = (
    Step("the versions", configuration.versions),
    Step("the sources", configuration.sources),
    Step("the console's credentials", configuration.console),
    Step("the log-in with a provider", login.check),
    Step("the alerts", alerts.check),
    Step("the destinations", destinations.check),
    Step("the addresses", addresses.resolve),
    Step("the certificate of PostgreSQL", certificates.of_database),
    Step("the certificate of Redis", certificates.of_redis),
    Step("the database", database.reach, then=_OF_THE_DATABASE),
    Step(
        "Redis",
        redis.reach,
        then=(Step("Redis's policy", redis.policy), Step("the keys in Redis", redis.keys)),
    ),
    Step("the processors", processors.check),
)


def examine(
    setup: Setup, steps: Iterable[Step] = STEPS, *, bound_s: float = BOUND_S
) -> list[Finding]:
    """Return what the checks find, the worst first. A check that hangs or fails is a finding.

    Args:
        setup: what is examined.
        steps: the checks, in their order.
        bound_s: seconds after which a check is given up.
    """
    return by_severity(_walk(setup, steps, bound_s))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the worst first, otherwise in their order."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def _walk(setup: Setup, steps: Iterable[Step], bound_s: float) -> Iterator[Finding]:
    for step in steps:
        findings = _within(bound_s, step, setup)
        yield from findings
        if not any(finding.severity is Severity.ERROR for finding in findings):
            yield from _walk(setup, step.then, bound_s)


def _within(bound_s: float, step: Step, setup: Setup) -> list[Finding]:
    """Run a check on a thread, and leave it behind if it takes too long."""
    findings: list[Finding] = []
    thread = threading.Thread(
        target=lambda: findings.extend(_run(step, setup)), name="doctor", daemon=True
    )
    thread.start()
    thread.join(bound_s)
    if thread.is_alive():
        return [TIMED_OUT.found(f"The check of {step.about} took over {bound_s:g} s: given up.")]
    return findings


def _run(step: Step, setup: Setup) -> list[Finding]:
    try:
        return list(step.check(setup))
    except SQLAlchemyError as error:
        why = database.cause_of(error, setup).sentence
    except Exception as error:
        why = causes.explain(error).sentence
    return [FAILED.found(f"The check of {step.about} failed. {why}")]
