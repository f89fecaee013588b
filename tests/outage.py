"""`python3 dev.py outage`: a service that a processor calls is down for ten minutes at 200 events a
second. It shows the attempts that this spends, and how soon all of it is caught up."""

import argparse
import os
import sys

import pytest


def main() -> int:
    """Return 0 if nothing was spent but the attempts that opened the breaker, and the probes."""
    parser = argparse.ArgumentParser(prog="dev.py outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long it is down")
    parser.add_argument("--rate", type=int, default=200, help="events a second")
    parser.add_argument("--probe-every-s", type=float, default=30)
    arguments = parser.parse_args()
    os.environ |= {
        "OUTAGE_S": str(60 * arguments.minutes),
        "OUTAGE_RATE": str(arguments.rate),
        "OUTAGE_PROBE_EVERY_S": str(arguments.probe_every_s),
    }
    return pytest.main(["-q", "-s", "-n", "0", "tests/acceptance/test_outage.py"])


if __name__ == "__main__":
    sys.exit(main())
