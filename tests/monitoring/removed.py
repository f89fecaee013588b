"""A processor that a deploy leaves out."""

from sqlalchemy import Connection

from tests.monitoring.processors import is_flagged
from workers import Event, processor


@processor("label.printed", name="labels", max_attempts=1_000, retry_max_delay_s=0.5)
def label(_event: Event, _db: Connection) -> None:
    """Fail, so that a job is left when the processor is."""
    if is_flagged("labels"):
        raise ConnectionError("the printer is away")
