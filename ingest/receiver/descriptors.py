"""Notices when the process has run out of file descriptors.

The event loop then accepts a connection and closes it, and logs nothing."""

import asyncio
import errno
import os

from ingest import logs

INTERVAL_S = 1.0

log = logs.logger(__name__)


async def watch() -> None:
    """Log once a second, as long as there are none left. Ends by cancellation."""
    while True:
        if are_used_up():
            log.error("file_descriptors_used_up")
        await asyncio.sleep(INTERVAL_S)


def are_used_up() -> bool:
    """Return whether no file can be opened and no connection accepted."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
