"""Dispatch: put messages with ids on Redis for Celery. A lost one costs time, never an event."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import redis
from celery import Celery

from ingest import broker, logs, queues
from ingest.errors import DispatchFailed
from ingest.monitoring import catalogue
from ingest.monitoring.samples import Sample
from ingest.redis_address import SOCKET_TIMEOUT_S, RedisAddress

IDS_PER_MESSAGE = 200

_PAUSE_AFTER_FAILURE_S = 1.0
# A message costs a worker several commits, however few ids it has.
_GATHER_PER_ID_S = 0.01
_MOST_IDS = 5
_GATHER_PER_WAITING_S = 0.005
_LONGEST_GATHER_S = 1.0
_WAITING_LIMIT = 50_000

log = logs.logger(__name__)


class Dispatcher:
    """Sends messages, and raises when it cannot. Use one per thread."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self.confirmed = 0
        """Messages that Redis confirmed."""
        self.unconfirmed = 0
        """Messages that it did not confirm."""
        self._app = Celery("ingest", set_as_current=False)
        broker.configure(
            self._app,
            address,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
        )
        self._app.conf.update(
            result_backend=None,
            task_publish_retry=False,
            task_ignore_result=True,
            broker_pool_limit=1,
            broker_pool_acquire_timeout=SOCKET_TIMEOUT_S,
            broker_connection_timeout=SOCKET_TIMEOUT_S,
        )
        self._redis = address.connect()

    def dispatch(
        self, queue: str, *, deliveries: Sequence[UUID] = (), jobs: Sequence[int] = ()
    ) -> None:
        """Send one message.

        Args:
            queue: the Celery queue.
            deliveries: ids to admit and process.
            jobs: ids to run.

        Raises:
            DispatchFailed: Redis did not confirm the message. It may have taken it.
        """
        try:
            self._app.send_task(
                queues.TASK,
                args=([delivery.hex for delivery in deliveries], list(jobs)),
                queue=queue,
                argsrepr=f"({len(deliveries)} deliveries, {len(jobs)} jobs)",
                kwargsrepr="{}",
                retry=False,
            )
        except Exception as error:  # kombu, redis-py and the socket each raise their own
            self.unconfirmed += 1
            raise DispatchFailed(
                f"Redis took no message: {type(error).__name__}.", reason="dispatch_failed"
            ) from error
        self.confirmed += 1

    def read(self) -> Iterator[Sample]:
        """Yield what was counted since the start, for Prometheus."""
        yield Sample(catalogue.DISPATCHES, self.confirmed)
        yield Sample(catalogue.DISPATCH_FAILURES, self.unconfirmed)

    def backlog(self, queue: str) -> int:
        """Return the number of messages that wait in `queue`.

        Raises:
            DispatchFailed: Redis does not answer.
        """
        try:
            length: Any = self._redis.llen(self._address.key(queue))
        except redis.RedisError as error:
            raise DispatchFailed(
                f"Redis does not answer: {type(error).__name__}.", reason="redis_unreachable"
            ) from error
        return int(length)

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
        self._redis.close()


def gather_s(sent: int, waiting: int) -> float:
    """Return for how many seconds to collect ids after a message, before the next one.

    Few ids are followed by others soon: up to 100 a second each go at once. From 5 ids a message on
    they are collected for 50 ms. What would wait behind other messages anyway is collected for
    longer, up to a second: fewer and larger messages let workers that are late catch up.

    Args:
        sent: ids in the message.
        waiting: messages that wait in the queue.
    """
    usual_s = _GATHER_PER_ID_S * min(sent, _MOST_IDS)
    return min(_LONGEST_GATHER_S, max(usual_s, _GATHER_PER_WAITING_S * waiting))


class BackgroundDispatcher:
    """Dispatches committed deliveries from a thread, so that the event loop never waits for Redis.

    Ids that cannot be sent, or exceed the limit of waiting ids, are dropped. The relay finds them.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._waiting: deque[UUID] = deque(maxlen=_WAITING_LIMIT)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        self.failing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hint(self, deliveries: Iterable[UUID]) -> None:
        """Dispatch the deliveries soon. Never block, never raise."""
        self._waiting.extend(deliveries)
        self._wake.set()

    def close(self, *, timeout_s: float) -> None:
        """Send the waiting ids and end the thread, within `timeout_s` seconds."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._dispatcher.close()

    def _run(self) -> None:
        while not (self._closing.is_set() and not self._waiting):
            self._wake.wait()
            self._wake.clear()
            while ids := self._take():
                self._send(ids)
                if len(ids) < IDS_PER_MESSAGE:
                    self._closing.wait(gather_s(len(ids), self._waiting_messages()))

    def _take(self) -> list[UUID]:
        count = min(len(self._waiting), IDS_PER_MESSAGE)
        return [self._waiting.popleft() for _ in range(count)]

    def _waiting_messages(self) -> int:
        if self.failing or self._closing.is_set():
            return 0
        try:
            return self._dispatcher.backlog(queues.LIVE)
        except DispatchFailed:
            return 0

    def _send(self, ids: Sequence[UUID]) -> None:
        try:
            self._dispatcher.dispatch(queues.LIVE, deliveries=ids)
            self.failing = False
        except DispatchFailed as error:
            if not self.failing:
                log.warning("dispatch_failed", reason=error.reason, deliveries=len(ids))
            self.failing = True
            self._waiting.clear()
            self._closing.wait(_PAUSE_AFTER_FAILURE_S)
