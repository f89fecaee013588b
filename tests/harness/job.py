"""The processor of the benchmark: it takes as long as a job is to take, and reports."""

import asyncio
import os
import socket
import struct
import time
from functools import cache

from sqlalchemy.ext.asyncio import AsyncConnection

from workers import Event, processor

RECORD = struct.Struct("!d")
"""When the event was sent, in Unix seconds: a line of the report, sent as the job ends."""
REPORTS, IN_FLIGHT = "HARNESS_REPORTS", "HARNESS_IN_FLIGHT"
"""Variables of the worker: the socket that it reports to, and how many jobs a process has at once.
"""


@processor("order.created", name="job", in_flight=int(os.environ.get(IN_FLIGHT, "16")))
async def work(event: Event, db: AsyncConnection) -> None:
    """Work for a while, and report how late it began."""
    late = time.time() - float(event.data["sent_at"])
    await asyncio.sleep(float(event.data["work_s"]))
    _reports().sendall(RECORD.pack(late))


@cache
def _reports() -> socket.socket:
    reports = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    reports.connect(os.environ[REPORTS])
    return reports
