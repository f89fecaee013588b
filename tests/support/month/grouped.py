"""What a relay would have recorded of the month: its failures, and the sums of its counts."""

import threading
import time
from datetime import UTC, datetime, timedelta

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import activity_sums, metrics
from tests.support.month.around import ACTIVITY_OF
from workers.relay.grouping import Grouping


def group_failures(database_url: str) -> None:
    """Record what fails now, as the relay does."""
    engine = create_engine(parse(database_url), role=Role.RELAY)
    grouping = Grouping(engine, stop=threading.Event())
    while grouping.run_once(clock=time.monotonic(), now=datetime.now(UTC)):
        pass
    engine.dispose()


def sum_up(database_url: str) -> None:
    """Sum up all that is counted, as the relay does within some minutes."""
    engine = create_engine(parse(database_url), role=Role.RELAY)
    now, passes = datetime.now(UTC), ACTIVITY_OF // timedelta(days=7) + 1
    for _ in range(passes):
        with engine.begin() as connection:
            activity_sums.make(
                connection, metrics.SUMMED, now=now, keep_quarters=metrics.QUARTERS_KEPT
            )
    engine.dispose()
