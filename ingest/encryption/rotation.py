"""The run that brings every stored body to one key, or to none.

It keeps no position: what is done already is passed over, at the cost of reading its rows. So it
goes on after an interruption, and several may run.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Engine

from ingest.encryption.keys import BodyKeys
from ingest.errors import BodyKeyMissing, BodyTampered
from ingest.store.encryption import rotation as store
from ingest.store.encryption.rotation import StoredBody
from ingest.store.repeated import until_free

_START = UUID(int=0)


@dataclass(slots=True)
class Progress:
    """What a run has done so far."""

    read: int = 0
    """Deliveries."""
    written: int = 0
    """Bodies that are under the key now."""
    missing: Counter[str] = field(default_factory=Counter)
    """Bodies that are left alone because the process lacks their keys, by the ids of those."""
    tampered: list[UUID] = field(default_factory=list)
    """Deliveries whose bodies are left alone because they cannot be decrypted."""


def bring_all(engine: Engine, keys: BodyKeys, *, wanted: str | None) -> Iterator[Progress]:
    """Bring every body to the key of the id `wanted`; None: decrypt it. Yield after each page.

    The caller has made sure that bodies may be encrypted with the key.

    Raises:
        SQLAlchemyError: PostgreSQL is away, or rows stay locked; what was done stays done.
    """
    progress = Progress()
    after: UUID | None = _START
    while after is not None:
        with engine.connect() as connection:
            page = store.page_after(connection, after, wanted=wanted)
        pairs = list(_converted(page.bodies, keys, wanted, progress))
        if pairs:
            progress.written += _write(engine, pairs, wanted)
        progress.read += page.rows
        after = page.end
        yield progress


def _converted(
    bodies: Sequence[StoredBody], keys: BodyKeys, wanted: str | None, progress: Progress
) -> Iterator[tuple[StoredBody, bytes]]:
    for stored in bodies:
        try:
            body = keys.open(stored.stored, stored.delivery, stored.key)
        except BodyKeyMissing as error:
            progress.missing[error.key] += 1
        except BodyTampered:
            progress.tampered.append(stored.delivery)
        else:
            yield (
                stored,
                body if wanted is None else keys.seal(body, stored.delivery, wanted),
            )


def _write(engine: Engine, pairs: Sequence[tuple[StoredBody, bytes]], wanted: str | None) -> int:
    before, bodies = [stored for stored, _ in pairs], [body for _, body in pairs]

    def replace() -> int:
        with engine.begin() as connection:
            return store.replace(connection, before, bodies, wanted=wanted)

    return until_free(replace)


def count_all(
    engine: Engine, *, tell: Callable[[int], object] = lambda _: None
) -> Counter[str | None]:
    """Return how many stored bodies are under each key, by its id; None: in clear. `tell` gets the
    number after each page."""
    total: Counter[str | None] = Counter()
    after: UUID | None = _START
    while after is not None:
        with engine.connect() as connection:
            counted, after = store.count_after(connection, after)
        total.update(counted)
        tell(total.total())
    return total
