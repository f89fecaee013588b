"""Our receiver with its storage taken out: what any storage could reach at most.

Run as a program it is that receiver: it listens on the inherited socket whose number it is given.
"""

import asyncio
import sys

from ingest.cli.main import main
from ingest.receiver.writer import DeliveryWriter
from ingest.store.pipeline.deliveries import Delivery
from tests.benchmarks.ours import Ours


class Ceiling(Ours):
    """Verifies, names, answers."""

    name = "ceiling"
    receiver = ("-m", "tests.benchmarks.ceiling")


def _keep_nothing(_writer: DeliveryWriter, _delivery: Delivery) -> asyncio.Future[None]:
    """Instead of `submit`."""
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


if __name__ == "__main__":
    DeliveryWriter.submit = _keep_nothing  # type: ignore[assignment,method-assign]
    sys.argv[1:] = ["serve", "--fd", sys.argv[1]]
    main()
