"""`python -m workers worker|relay|processors`: what `ingest worker` and `ingest relay` become, and
what `ingest doctor` and `ingest up --reload` ask.

`ingest` never imports this package, so its command line replaces itself with this one.
"""

import argparse
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import Any

from ingest import broker, environment, logs, settings
from ingest.errors import IngestError
from ingest.store import startup_check
from workers import command, liveness, registry


def main() -> int:
    """Run the process that the arguments name; returns its exit code."""
    parser = argparse.ArgumentParser(prog="ingest")
    processes = parser.add_subparsers(dest="process", required=True)
    worker = processes.add_parser("worker")
    worker.add_argument("--concurrency", type=int)
    worker.add_argument("--queues", default="")
    processes.add_parser("relay")
    processes.add_parser("processors")
    arguments = parser.parse_args()
    try:
        loaded = settings.load(concurrency=getattr(arguments, "concurrency", None))
        if arguments.process == "processors":
            print(json.dumps(_declared(registry.load(loaded))))
            return 0
        logs.configure(loaded.log_level, loaded.log_format)
        environment.report(os.environ, logs.logger(__name__))
        liveness.check(loaded.heartbeat_file)
        broker.refuse_cluster(loaded.redis)
        startup_check.check(loaded.database, reads_bodies=arguments.process == "worker")
        if arguments.process == "worker":
            queues = tuple(name for name in arguments.queues.split(",") if name)
            return command.run(loaded, consumed=queues)
        from workers.relay import loop  # with the alerts' channels, 0.3 s of CPU for a worker

        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        loop.run(loaded, stop, today=lambda: datetime.now(UTC).date())
    except IngestError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return 1
    return 0


def _declared(processors: registry.Registry) -> list[dict[str, Any]]:
    """Return what `ingest.declared` reads."""
    return [{"name": processor.name, "types": processor.types} for processor in processors]


if __name__ == "__main__":
    sys.exit(main())
