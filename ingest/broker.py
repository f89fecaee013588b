"""Celery's transport over Redis. It uses our keys only, and no content of Redis can stop a worker.

Anybody who shares the Redis can write to any key. So each message is checked before Celery sees it.
An error of Redis that kombu does not know is treated as a lost connection, and Celery reconnects.
"""

import base64
import binascii
import json
import ssl
import time
from queue import Empty
from typing import Any, ClassVar

import redis
from celery import Celery
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError
from redis.sentinel import Sentinel

from ingest import logs, queues
from ingest.errors import SettingsError
from ingest.redis_address import SOCKET_TIMEOUT_S, RedisAddress

_ALIAS = "ingest"
"""The scheme of our transport in an address. kombu chooses the transport by it alone."""
_SENTINEL_ALIAS = "ingest-sentinel"
_LOG_INTERVAL_S = 10.0
_START_TIMEOUT_S = 5.0
"""Redis can be slow while the machine starts everything."""
_LOOK_AGAIN_S = 5.0
"""Time between two checks of a key that another application uses."""

log = logs.logger(__name__)


def configure(app: Celery, address: RedisAddress, **transport_options: Any) -> None:
    """Point a Celery application at Redis."""
    TRANSPORT_ALIASES[_ALIAS] = f"{__name__}:Transport"
    TRANSPORT_ALIASES[_SENTINEL_ALIAS] = f"{__name__}:SentinelTransport"
    alias = _ALIAS if address.sentinels is None else _SENTINEL_ALIAS
    app.conf.update(
        broker_url=address.broker_url.replace("redis", alias, 1),
        broker_use_ssl=_tls_of_kombu(address),
        broker_transport_options={
            "global_keyprefix": address.key_prefix,
            "socket_keepalive": True,
            **_sentinel_options(address),
            **transport_options,
        },
    )


def _tls_of_kombu(address: RedisAddress) -> dict[str, Any] | None:
    if address.tls is None:
        return None
    kinds = {
        "required": ssl.CERT_REQUIRED,
        "optional": ssl.CERT_OPTIONAL,
        "none": ssl.CERT_NONE,
    }
    return {**address.tls, "ssl_cert_reqs": kinds[address.tls["ssl_cert_reqs"]]}


def _sentinel_options(address: RedisAddress) -> dict[str, Any]:
    if address.sentinels is None:
        return {}
    return {
        "master_name": address.sentinels.master,
        "sentinel_places": address.sentinels.places,
        "sentinel_kwargs": address.sentinel_options(SOCKET_TIMEOUT_S),
    }


def refuse_cluster(address: RedisAddress) -> None:
    """Refuse Redis Cluster, which Celery cannot use. A Redis that does not answer is accepted.

    Raises:
        SettingsError: the address is of a Redis Cluster.
    """
    client = address.connect(timeout_s=_START_TIMEOUT_S)
    try:
        enabled = client.info("cluster").get("cluster_enabled")
    except (redis.RedisError, OSError):  # unreachable or not allowed: neither prevents the start
        return
    finally:
        client.close()
    if enabled:
        raise SettingsError(
            "INGEST_REDIS_URL: Redis Cluster is not supported: name a single Redis.",
            reason="redis_cluster",
        )


def is_hint(message: Any) -> bool:
    """Return whether a message, in kombu's form in Redis, is one that the dispatcher sends."""
    try:
        body = json.loads(base64.b64decode(message["body"], validate=True))
        (deliveries, jobs), keywords, embedded = body
        return bool(
            message["headers"]["task"] == queues.TASK
            and message["content-type"] == "application/json"
            and message["properties"]["body_encoding"] == "base64"
            and isinstance(message["headers"]["id"], str)
            and isinstance(message["properties"]["delivery_tag"], str)
            and keywords == {}
            and not any(embedded.values())  # callbacks, chains: Celery would run them
            and all(isinstance(delivery, str) and _is_hex_id(delivery) for delivery in deliveries)
            and all(type(job) is int and 0 <= job < 2**63 for job in jobs)
        )
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error, RecursionError):
        return False


def _bare(hint: dict[str, Any], queue: str) -> dict[str, Any]:
    """Return a message without the headers and properties that Celery would act on.

    Malformed ones can stop a worker: `timelimit`, `stamps`, `content-encoding`."""
    task_id = hint["headers"]["id"]
    return {
        "body": hint["body"],
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": queues.TASK, "id": task_id},
        "properties": {
            "correlation_id": task_id,
            "delivery_tag": hint["properties"]["delivery_tag"],
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
        },
    }


def _is_hex_id(text: str) -> bool:
    return len(text) == 32 and text.isascii() and text.isalnum() and int(text, 16) >= 0


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """kombu's channel. It drops messages that the dispatcher did not send."""

    dropped = 0
    """Messages that this process dropped."""
    _reports: ClassVar[logs.Sampler] = logs.Sampler(
        interval_s=_LOG_INTERVAL_S, clock=time.monotonic
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._foreign: frozenset[str] = frozenset()
        """Queues whose key holds a value that is not a list."""
        self._look_again_at = 0.0

    def _queue_bind(self, *_binding: Any) -> None:
        """Write no binding: messages are sent by queue name.

        A key of another type under the binding's name would make a worker reconnect for ever.
        """

    def _size(self, queue: str) -> int:
        """Return how many messages wait. kombu calls it when it declares a queue."""
        try:
            return int(super()._size(queue))
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return 0

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Request the next message of all queues but those whose key is another application's."""
        if self._foreign and time.monotonic() >= self._look_again_at:
            self._look_for_foreign_keys()
        queues_in_turn = self._queue_cycle.consume(len(self.active_queues))
        keys = [
            self.global_keyprefix + self._q_for_pri(queue, priority)
            for priority in self.priority_steps
            for queue in queues_in_turn
            if queue not in self._foreign
        ]
        if keys:
            self._in_poll = self.client.connection
            self._brpop_sent_at = time.monotonic()
            wait_s = self.brpop_timeout if timeout is None else timeout
            self.client.connection.send_command("BRPOP", *keys, wait_s or 0)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the answer of BRPOP, and deliver it if the dispatcher sent it."""
        try:
            answer = self._answer_of_brpop(**options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        queue = bytes_to_str(answer[0]).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        message = _read(answer[1])
        if is_hint(message):
            self.connection._deliver(_bare(message, queue), queue)  # noqa: SLF001 - as kombu does
        else:
            self._drop(queue)
        return True

    def _answer_of_brpop(self, **options: Any) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                self._look_for_foreign_keys()
                return None
            self.client.connection.disconnect()
            raise
        except self.connection_errors:
            self.client.connection.disconnect()
            raise

    def _look_for_foreign_keys(self) -> None:
        """Find the queues whose key is not a list. Leave the key: its owner is unknown."""
        self._look_again_at = time.monotonic() + _LOOK_AGAIN_S
        keys = {queue: self.global_keyprefix + queue for queue in self.active_queues}
        kinds = {
            queue: bytes_to_str(self.client.execute_command("TYPE", key))
            for queue, key in keys.items()
        }
        foreign = frozenset(queue for queue, kind in kinds.items() if kind not in ("list", "none"))
        if foreign != self._foreign:
            log.warning(
                "foreign_keys_in_redis",
                keys=sorted(keys[queue] for queue in foreign),
                kinds=sorted({kinds[queue] for queue in foreign}),
            )
        self._foreign = foreign

    def _drop(self, queue: str) -> None:
        type(self).dropped += 1
        if self._reports.lets_through(queue):
            log.warning(
                "foreign_message_dropped",
                queue=queue,
                dropped=type(self).dropped,
                left_out=self._reports.left_out(queue),
            )


def _read(raw: bytes | str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's transport. It treats an error answer of Redis as a lost connection."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, ResponseError)


class SentinelChannel(Channel, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """The same, on the master that the Sentinels name."""

    from_transport_options = (
        *kombu_redis.SentinelChannel.from_transport_options,
        "sentinel_places",
    )

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Return a pool of connections to the master. kombu's own method takes Sentinels only from
        an address whose scheme is kombu's."""
        options = self._connparams(asynchronous)
        del options["host"], options["port"]
        manager: Any = Sentinel(  # type: ignore[no-untyped-call]
            self.sentinel_places, sentinel_kwargs=self.sentinel_kwargs
        )
        if asynchronous:  # kombu closes the connections of these two
            self._async_sentinel_manager = manager
        else:
            self._sentinel_manager = manager
        return manager.master_for(self.master_name, redis.Redis, **options).connection_pool


class SentinelTransport(Transport):
    """The transport whose address names Sentinels."""

    Channel = SentinelChannel
