"""The errors of the package. The reason slug of each is also its label in logs and metrics."""

from uuid import UUID


class IngestError(Exception):
    """Base of every error that is raised on purpose.

    `reason` is a slug for machines. The message is a sentence for people. It holds no secret, no
    body and no phone number.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SettingsError(IngestError):
    """A setting is missing or unusable: the process must not start."""


class BadAddress(IngestError):
    """The address of a server cannot be read. The message holds no part of it."""


class MigrationRefused(IngestError):
    """The database's schema cannot be migrated. The revisions made so far stay."""


class UnknownSource(IngestError):
    """The source is not configured: 404 for a request, a failed attempt for an event."""


class InvalidSignature(IngestError):
    """The request is not proven to come from its sender: 401, nothing is stored."""


class InvalidEnvelope(IngestError):
    """The request is signed but is not an event: 400, stored as rejected."""


class BodyTooLarge(IngestError):
    """The body is over the limit: 413, nothing is stored."""


class BodyTooSlow(IngestError):
    """The body did not arrive in time: 503, nothing is stored.

    The delay may be ours, and a 4xx would be final.
    """


class TooManyBodies(IngestError):
    """The incomplete bodies in memory have reached their limit: 503, nothing is stored."""


class StorageUnavailable(IngestError):
    """The delivery was not committed, or it is unknown whether it was: 503."""


class BodyKeyMissing(IngestError):
    """A stored body is encrypted with a key that this process has not been given."""

    def __init__(self, key: str) -> None:
        """`key` is the id of the key."""
        super().__init__(
            f"The body is encrypted with the key {key}, which this process has not been given:"
            " INGEST_BODY_KEYS lacks it.",
            reason="body_key_missing",
        )
        self.key = key


class BodyTampered(IngestError):
    """A stored body cannot be decrypted with its key: it is not what was stored in that row."""

    def __init__(self, delivery: UUID) -> None:
        super().__init__(
            f"The stored body of the delivery {delivery} was changed: its key does not fit it.",
            reason="body_tampered",
        )


class DispatchFailed(IngestError):
    """A dispatch did not reach Redis. Nothing is lost: the relay finds the work in Postgres."""


class LeaseLost(IngestError):
    """Other workers took over the jobs that this one ran: its effects for them must not commit."""

    def __init__(self, job_ids: frozenset[int]) -> None:
        super().__init__(
            f"{len(job_ids)} jobs were taken over by other workers", reason="lease_lost"
        )
        self.job_ids = job_ids


class TooManyEvents(IngestError):
    """A selection means more events than can be acted on in this way."""


class NotFound(IngestError):
    """No row has this id."""


class AlreadyThere(IngestError):
    """Something else has this name."""


class InvalidName(IngestError):
    """What somebody would name something is no name."""


class KeyMisused(IngestError):
    """An Idempotency-Key was used for another request: 422."""


class KeyInUse(IngestError):
    """The request of an Idempotency-Key runs, or nobody knows how it ended: 409."""
