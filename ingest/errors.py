"""The errors of the package. Each carries a reason slug, which is also its label in logs and
metrics."""


class IngestError(Exception):
    """Root of every error raised on purpose.

    `reason` is a slug for machines; the message is a sentence for people and holds no secret, no
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
    """The database's schema cannot be brought up to date; nothing of it has changed."""


class UnknownSource(IngestError):
    """No such source is configured: 404 for a request, a failed attempt for an event."""


class InvalidSignature(IngestError):
    """The request is not provably from its sender: 401, nothing is stored."""


class InvalidEnvelope(IngestError):
    """The request is signed but is no event: 400, stored as rejected."""


class BodyTooLarge(IngestError):
    """The body is over the limit: 413, nothing is stored."""


class BodyTooSlow(IngestError):
    """The body did not arrive in time: 503, nothing is stored. The time may have been lost on our
    side, and a 4xx would be final."""


class TooManyBodies(IngestError):
    """Too much of bodies that are not whole is held already: 503, nothing is stored."""


class StorageUnavailable(IngestError):
    """The delivery could not be committed, or nobody knows whether it was: 503."""


class DispatchFailed(IngestError):
    """A hint did not reach Redis. Nothing is lost: the relay finds the work in Postgres."""


class LeaseLost(IngestError):
    """Jobs were taken over while this worker ran them: what it did for them must not commit."""

    def __init__(self, job_ids: frozenset[int]) -> None:
        super().__init__(f"{len(job_ids)} jobs were taken over meanwhile", reason="lease_lost")
        self.job_ids = job_ids


class NotFound(IngestError):
    """No row answers to the id that was given."""
