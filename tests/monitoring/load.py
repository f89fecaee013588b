"""A light load, as every pipeline that is well has: new events, and now and then a duplicate."""

import http.client
import itertools
import threading
import time
from collections.abc import Mapping

from tests.support.deliver import body, order
from tests.support.signing import SECRET, signed_headers

OLDER_SECRET = "whsec_the_older_one_0123456789"
_INTERVAL_S = 0.1
_DUPLICATE_EVERY = 10


class Load:
    """Sends from a thread, and goes on whatever is answered. What is sent can be changed."""

    def __init__(self, port: int) -> None:
        """Send to the receiver on `port`."""
        self._port = port
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.numbers = itertools.count(1)
        """Names of orders and events: each is taken once."""
        self.secret = SECRET
        """What the requests are signed with."""
        self.clock_s = 0
        """By how much the sender's clock is ahead, seconds."""
        self.sources: tuple[str, ...] = ("awalchat", "till")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def new_order(self) -> bytes:
        """Return an order that was not there yet."""
        return order(next(self.numbers))

    def event(self, event_type: str) -> bytes:
        """Return a new event of a type."""
        return body(event_type, {"number": next(self.numbers)})

    def post(self, content: bytes, *, source: str = "awalchat") -> int | None:
        """Send one request; return the status of its answer, or None without one."""
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            client.request("POST", f"/webhooks/{source}", content, dict(self._signed(content)))
            return client.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            client.close()

    def _signed(self, content: bytes) -> Mapping[str, str]:
        stamp = int(time.time()) + self.clock_s
        return signed_headers(content, secret=self.secret, timestamp=stamp)

    def _run(self) -> None:
        sent = itertools.count(1)
        while not self._stopped.wait(_INTERVAL_S):
            content = self.new_order()
            for source in self.sources:
                self.post(content, source=source)
            if next(sent) % _DUPLICATE_EVERY == 0:
                self.post(content)
