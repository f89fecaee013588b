"""Serves the metrics of a process over HTTP, on a port of its own.

It has no login and answers one request at a time, so it belongs on a network where only the
monitoring reaches it. The client library is imported here only, when metrics are served.
"""

import errno
import socket
import socketserver
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ingest import __version__, logs
from ingest.monitoring.catalogue import BUILD, Kind, Metric
from ingest.monitoring.samples import Distribution, Read, Sample
from ingest.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

_BIND_AGAIN_S = 2.0
"""A process that is being replaced may hold the port until it has ended."""
_REQUEST_TIMEOUT_S = 5.0
_LOOK_S = 0.5
"""How often it is looked whether the endpoint ends. `shutdown` of the base class waits for ever
where `serve_forever` was not begun."""

log = logs.logger(__name__)


class Address(NamedTuple):
    """Where metrics are served."""

    host: str
    port: int


class Endpoint:
    """Serves what its readers read."""

    def __init__(
        self,
        address: Address,
        process: str,
        reads: Sequence[Read],
        *,
        pid: int | None = None,
    ) -> None:
        """Make an endpoint that is yet to be started.

        Args:
            address: where to listen.
            process: the kind of the process, as in the catalogue.
            reads: return the values.
            pid: of the process whose CPU and memory are told; default: this one.
        """
        self._address = address
        self._process = process
        self._reads = reads
        self._pid = pid
        self._ends = threading.Event()
        self._server: WSGIServer | None = None
        self._thread = threading.Thread(target=self.run, name="metrics", daemon=True)

    def start(self) -> None:
        """Serve from a thread."""
        self._thread.start()

    def run(self) -> None:
        """Serve until `close`. While the port is taken, try again every 2 s: metrics never keep a
        process from its work."""
        self._bind()
        if self._server is None:
            return
        try:
            while not self._ends.is_set():
                self._server.handle_request()
        finally:
            self._server.server_close()

    def close(self) -> None:
        """Stop serving, once what is being answered has its answer."""
        self._ends.set()
        self._thread.join()

    def _bind(self) -> None:
        told = False
        while not self._ends.is_set() and self._server is None:
            try:
                self._server = _listen(self._address)
            except OSError as error:
                if not told:
                    log.error(
                        "metrics_not_served",
                        host=self._address.host,
                        port=self._address.port,
                        cause=_cause(error),
                    )
                told = True
                self._ends.wait(_BIND_AGAIN_S)
        if self._server is not None:
            from prometheus_client.exposition import make_wsgi_app

            app = make_wsgi_app(registry(self._process, self._reads, pid=self._pid))
            self._server.set_app(app)
            log.info("metrics_served", host=self._address.host, port=self._address.port)


def endpoint(
    settings: Settings, process: str, reads: Sequence[Read], *, pid: int | None = None
) -> Endpoint | None:
    """Return what serves the metrics of a process, or None: its settings name no port."""
    port = settings.metrics_port(process)
    if port is None:
        return None
    return Endpoint(Address(settings.metrics_host, port), process, reads, pid=pid)


def registry(process: str, reads: Sequence[Read], *, pid: int | None = None) -> "CollectorRegistry":
    """Return a registry of the client library with the values of a process."""
    from prometheus_client import CollectorRegistry, ProcessCollector

    made = CollectorRegistry(auto_describe=False)
    made.register(_Values(process, reads))
    ProcessCollector(namespace="ingest", pid=lambda: pid or "self", registry=made)
    return made


class _Values:
    """Spells samples as families of the client library, when they are asked for."""

    def __init__(self, process: str, reads: Sequence[Read]) -> None:
        self._process = process
        self._reads = reads

    def collect(self) -> Iterator["Family"]:
        """Yield a family for each metric."""
        samples = [Sample(BUILD, 1, (self._process, __version__))]
        for read in self._reads:
            samples += read()
        by_metric: dict[Metric, list[Sample]] = {}
        for sample in samples:
            by_metric.setdefault(sample.metric, []).append(sample)
        for metric, of_metric in by_metric.items():
            yield _family(metric, of_metric)


def _family(metric: Metric, samples: Iterable[Sample]) -> "Family":
    from prometheus_client.metrics_core import Metric as Family

    family = Family(metric.name.removesuffix("_total"), metric.meaning, metric.kind.value)
    for sample in samples:
        labels = dict(zip(metric.labels, sample.labels, strict=True))
        if isinstance(sample.value, Distribution):
            _add_distribution(family, metric.name, labels, sample.value)
        else:
            assert metric.kind is not Kind.HISTOGRAM
            family.add_sample(metric.name, labels, sample.value)
    return family


def _add_distribution(
    family: "Family", name: str, labels: dict[str, str], distribution: Distribution
) -> None:
    passed = 0.0
    bounds = [*(f"{bound:g}" for bound in distribution.bounds), "+Inf"]
    for bound, count in zip(bounds, distribution.counts, strict=True):
        passed += count
        family.add_sample(f"{name}_bucket", {**labels, "le": bound}, passed)
    family.add_sample(f"{name}_count", labels, passed)
    family.add_sample(f"{name}_sum", labels, distribution.total)


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log no request."""


class _Server(WSGIServer):
    timeout = _LOOK_S

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), port
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log that a client went away, or that a value could not be read."""
        log.warning("metrics_request_failed", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _listen(address: Address) -> WSGIServer:
    server = _Server6 if ":" in address.host else _Server
    return server((address.host, address.port), _Handler)


def _cause(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "The port is taken; it is tried again every 2 s."
    return f"{error.strerror or error}."
