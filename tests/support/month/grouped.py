"""What a relay would have recorded of the month's failures."""

import threading
import time
from datetime import UTC, datetime

from ingest.store.address import parse
from ingest.store.engine import Role, create_engine
from workers.relay.grouping import Grouping


def group_failures(database_url: str) -> None:
    """Record what fails now, as the relay does."""
    engine = create_engine(parse(database_url), role=Role.RELAY)
    grouping = Grouping(engine, stop=threading.Event())
    while grouping.run_once(clock=time.monotonic(), now=datetime.now(UTC)):
        pass
    engine.dispose()
