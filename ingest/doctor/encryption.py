"""Whether the processes have the keys that stored bodies are encrypted with."""

from collections.abc import Iterator

from ingest.doctor.findings import Finding, error, listed, note, warning
from ingest.doctor.setup import Setup
from ingest.store.encryption import gate
from ingest.store.reports import heartbeats

MISSING = error(
    "body_key_missing",
    "Give it in INGEST_BODY_KEYS: events under it wait. If it is lost: docs/encryption.md.",
)
MISSING_ELSEWHERE = error(
    "body_key_missing_elsewhere", "Give it to that process too: events under it wait."
)
IN_CLEAR = warning(
    "bodies_in_clear", "Give every receiver the keys: it stores bodies in clear, others encrypt."
)
IN_USE = note("body_keys")


def keys(setup: Setup) -> Iterator[Finding]:
    """Compare the keys in use with those of this process, and of those that run."""
    with setup.connected() as connection:
        used, missing = gate.used(connection), gate.missing(connection)
        alive = [process for process in heartbeats.all_of_them(connection) if process.alive]
    if not used:
        return
    yield IN_USE.found(f"Bodies are encrypted with {listed([f'the key {key}' for key in used])}.")
    if missing:
        yield MISSING.found(
            f"Bodies are encrypted with {listed([f'the key {key}' for key in missing])}, which"
            " this process has not been given."
        )
    for process in alive:
        own = process.body_keys or []
        lacking = [f"the key {key}" for key in used if key not in own]
        if process.kind in ("worker", "console") and lacking:
            yield MISSING_ELSEWHERE.found(f"{process.kind} {process.id} lacks {listed(lacking)}.")
        if process.kind == "receiver" and not own:
            yield IN_CLEAR.found(f"receiver {process.id} has no key.")
