"""`python -m tests.monitoring.relay relay`: a relay that measures the tables every second."""

import sys

from workers import __main__ as workers
from workers.relay import measurement

if __name__ == "__main__":
    measurement._INTERVAL_S = 1.0
    sys.exit(workers.main())
