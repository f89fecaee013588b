"""Log one JSON line for each event, or readable lines in a terminal.

A log never holds a body, a secret or a phone number. Exceptions are logged with their type and the
place that raised them. Their messages can quote data, so they stay in the database, with the
attempt.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import structlog

# Loggers of libraries that log more, or more often, than an operator needs.
_QUIET = {
    "uvicorn.access": logging.ERROR,
    "celery.worker.strategy": logging.WARNING,  # logs a line for each task received
    "celery.app.trace": logging.CRITICAL,  # logs task results; our task does, without messages
    "alembic": logging.WARNING,
    "authlib": logging.WARNING,  # with the next two: what is asked of an OIDC provider
    "httpcore2": logging.WARNING,
    "httpx2": logging.WARNING,
    "opentelemetry": logging.CRITICAL,  # ingest.tracing.sending tells of what is dropped
}

_LOOPS = "asyncio"
"""The logger of every event loop."""

# Loggers of libraries that a stranger can trigger, for example with a request that is not HTTP.
_SAMPLED = ("uvicorn.error", _LOOPS)
_SAMPLED_BEGINNING = 40
_IN_CALLBACK = "Exception in callback"
_LONGEST_CHAIN = 5


def configure(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send all logs of the process, ours and the libraries', to stderr in one format."""
    to_terminal = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if to_terminal else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.PositionalArgumentsFormatter(),
                _tell_left_out,
                _cut_of_a_loop,
                *shared,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_Sampled())
    threading.excepthook = _tell_of_a_thread
    sys.unraisablehook = _tell_of_an_end
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _tell_of_a_thread(args: threading.ExceptHookArgs) -> None:
    """Log that a thread failed. By itself Python writes the error's message, which may hold a
    body or a phone number."""
    if args.exc_type is SystemExit:
        return
    logger(__name__).error(
        "thread_failed",
        thread=args.thread.name if args.thread else None,
        exc_info=args.exc_value,
    )


def _tell_of_an_end(args: "sys.UnraisableHookArgs") -> None:
    """Log that the end of an object failed, which nobody catches; likewise without the message."""
    logger(__name__).error(
        "end_of_object_failed",
        object_type=type(args.object).__name__,
        exc_info=args.exc_value,
    )


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    module_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return module_logger


class Sampler:
    """Lets one event of each kind through per interval and counts the rest.

    So nobody outside can fill the disk with our logs.
    """

    def __init__(self, *, interval_s: float, clock: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def lets_through(self, kind: str) -> bool:
        """Return whether to log this event. If not, count it."""
        now = self._clock()
        if now < self._next.get(kind, 0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._next[kind] = now + self._interval_s
        return True

    def left_out(self, kind: str) -> int:
        """Return how many events were left out since the last call for this kind."""
        return self._left_out.pop(kind, 0)


class _Sampled(logging.Filter):
    """Lets through one line a second of each kind that the sampled loggers write."""

    def __init__(self) -> None:
        super().__init__()
        self._sampler = Sampler(interval_s=1.0, clock=time.monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name not in _SAMPLED or record.levelno < logging.WARNING:
            return True
        kind = f"{record.name} {str(record.msg)[:_SAMPLED_BEGINNING]}"
        if not self._sampler.lets_through(kind):
            return False
        record.left_out = self._sampler.left_out(kind)
        return True


def _tell_left_out(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add how many similar lines were left out before this one."""
    left_out = getattr(event.get("_record"), "left_out", 0)
    return {**event, "left_out": left_out} if left_out else event


def _cut_of_a_loop(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Of what an event loop tells leave what kind of thing it is. It quotes tasks and callbacks,
    with the messages of their exceptions and with arguments."""
    record = event.get("_record")
    if record is None or record.name != _LOOPS or record.levelno < logging.WARNING:
        return event
    kind = str(record.msg).partition("\n")[0]
    return {**event, "event": _IN_CALLBACK if kind.startswith(_IN_CALLBACK) else kind}


def _describe_exception(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the types of the exception and its causes, and the place of each."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info if isinstance(info, BaseException) else info[1] if info else None
    chain: list[dict[str, object]] = []
    while error is not None and len(chain) < _LONGEST_CHAIN:
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-3:]]
        chain.append({"type": f"{type(error).__module__}.{type(error).__qualname__}", "at": where})
        error = error.__context__ if error.__cause__ is None else error.__cause__
    if chain:
        event["exception"] = chain
    return event
