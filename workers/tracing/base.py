"""What a worker calls where something could be traced: it does nothing while traces are off."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

from sqlalchemy import Engine

from ingest.dispatch import Dispatcher
from ingest.redis_address import RedisAddress
from ingest.settings import Settings
from ingest.store.pipeline.jobs import ClaimedJob, Failure
from ingest.tracing import start
from workers.registry import Processor


class Traces:
    """Traces nothing."""

    def dispatcher(self, address: RedisAddress, _engine: Engine) -> Dispatcher:
        """Return a dispatcher; the engine is for whatever has to be asked for its spans."""
        return Dispatcher(address)

    def watched(self, engine: Engine) -> Engine:
        """Return the engine of processors, whose statements are traced from now on."""
        return engine

    def admission(
        self, _engine: Engine, _deliveries: Sequence[UUID]
    ) -> AbstractContextManager[None]:
        """Trace an admission, which is committed inside the block."""
        return nullcontext()

    def claimed(self, _engine: Engine, _claimed: Sequence[ClaimedJob]) -> None:
        """Note that jobs were claimed, before they run."""

    def call(
        self, _processor: Processor, _claimed: Sequence[ClaimedJob]
    ) -> AbstractContextManager[None]:
        """Trace the call of a processor for some jobs."""
        return nullcontext()

    def commit(self, _claimed: Sequence[ClaimedJob]) -> AbstractContextManager[None]:
        """Trace a commit of effects. Jobs whose block ends without an error have succeeded."""
        return nullcontext()

    def failed(self, _failures: Sequence[Failure]) -> None:
        """Note how attempts ended that did not succeed."""

    def close(self) -> None:
        """Send what waits, within a bounded time."""


def traces(settings: Settings, process: str) -> Traces:
    """Return what traces a process, a worker's or a relay's; in each fork anew.

    Raises:
        SettingsError: traces are on, and cannot be made.
    """
    tracing = start.tracing(settings, process)
    if tracing is None:
        return Traces()
    from workers.tracing.attempts import AttemptTraces

    return AttemptTraces(tracing)
