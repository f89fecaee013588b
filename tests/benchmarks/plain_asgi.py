"""Our receiver without its fast path: every delivery goes through ASGI.

Run as a program it is that receiver: it listens on the inherited socket whose number it is given.
"""

import sys

from ingest.cli.main import main
from tests.benchmarks.ours import Ours


class PlainAsgi(Ours):
    """Does the same work the longer way."""

    name = "ours, plain ASGI"
    receiver = ("-m", "tests.benchmarks.plain_asgi")


if __name__ == "__main__":
    sys.modules["ingest.receiver.fastpath"] = None  # type: ignore[assignment]  # as if deleted
    sys.argv[1:] = ["serve", "--fd", sys.argv[1]]
    main()
