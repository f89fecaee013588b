"""`python -m tests.power.controls NAME COMMAND…`: run `ingest COMMAND…` with a promise broken.

Each must lose acknowledged deliveries at a power cut. If one does not, the test sees nothing.
As it is, a receiver refuses a server that does not write commits to disk.
"""

import asyncio
import sys

from ingest.cli.main import main
from ingest.receiver.writer import DeliveryWriter
from ingest.store import engine
from ingest.store.pipeline.deliveries import Delivery

EARLY = "answer before the commit"
ASYNCHRONOUS = "synchronous_commit=off"
NO_SYNC = "fsync=off"
CONTROLS = (NO_SYNC, ASYNCHRONOUS, EARLY)


def _answer_early() -> None:
    submit = DeliveryWriter.submit

    def answered(self: DeliveryWriter, delivery: Delivery) -> asyncio.Future[None]:
        submit(self, delivery).add_done_callback(lambda future: future.exception())
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    DeliveryWriter.submit = answered  # type: ignore[method-assign]


def _accept_any_server() -> None:
    engine._check_durability = lambda row: None


def _commit_asynchronously() -> None:
    _accept_any_server()
    engine._DURABLE = "'off'"


_BREAK = {NO_SYNC: _accept_any_server, ASYNCHRONOUS: _commit_asynchronously, EARLY: _answer_early}

if __name__ == "__main__":
    _BREAK[sys.argv.pop(1)]()
    main()
