"""Run one process: `ingest serve`, `console`, `worker`, `relay`, `migrate`."""

import os
import signal
import socket
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ingest import environment, logs, settings
from ingest.cli import output
from ingest.cli.database import migration_failed
from ingest.cli.listening import listen
from ingest.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from ingest.store.migrations import State

GRACEFUL_SHUTDOWN_S = 10
"""For requests that have begun, after `shutdown_delay_s`. The drain times of all processes:
docs/deploying.md."""
WORKER_ENDS_S = 75.0
"""How long a worker may take to end after `worker_drain_s`: 60 s for a commit that began before,
the rest for its processes."""
CONSOLE_SHUTDOWN_S = 2
"""Live feeds never end by themselves."""
CONSOLE_KEEP_ALIVE_S = 15
"""Browsers reconnect. Only the connection pools of senders need `keep_alive_s`."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    fd: Annotated[int | None, typer.Option(help="Listen on this inherited socket instead.")] = None,
) -> None:
    """Run a receiver: it accepts, verifies and stores webhooks."""
    import uvicorn

    from ingest.broker import refuse_cluster
    from ingest.receiver.app import create_receiver
    from ingest.receiver.shutdown import DelayedServer
    from ingest.store import startup_check

    configured = settings.load(host=host, port=port)
    _begin_logging(configured)
    startup_check.check(configured.database, writes_bodies=True)
    receiver = create_receiver(configured)
    refuse_cluster(configured.redis)
    listener = listen(configured.host, configured.port) if fd is None else socket.socket(fileno=fd)
    config = uvicorn.Config(
        receiver.app,
        loop="uvloop",
        http=receiver.http,
        ws="none",
        log_config=None,
        access_log=False,  # one line for each request cost a third of the throughput
        server_header=False,
        timeout_keep_alive=configured.keep_alive_s,
        proxy_headers=False,  # limits are shared out by the address that connects
        # Without it, one half-sent body would keep the process running for ever.
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
    server = DelayedServer(config, receiver.shutdown, delay_s=configured.shutdown_delay_s)
    _serve(server, listener)


def console(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    fd: Annotated[int | None, typer.Option(help="Listen on this inherited socket instead.")] = None,
) -> None:
    """Run the console."""
    import uvicorn

    from ingest.console.app import create_app
    from ingest.receiver.server import protocol
    from ingest.store import startup_check

    configured = settings.load(console_host=host, console_port=port)
    _begin_logging(configured)
    startup_check.check(configured.database, reads_bodies=True)
    app = create_app(configured)
    listener = (
        listen(configured.console_host, configured.console_port)
        if fd is None
        else socket.socket(fileno=fd)
    )
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol(configured.max_inflight_body_bytes),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=CONSOLE_KEEP_ALIVE_S,
        proxy_headers=False,  # ingest.proxies does it for the trusted proxies
        timeout_graceful_shutdown=CONSOLE_SHUTDOWN_S,
    )
    _serve(uvicorn.Server(config), listener)


def worker(
    concurrency: Annotated[int | None, typer.Option(help="Number of processes.")] = None,
    queues: Annotated[
        str | None, typer.Option(help="Queues to consume, separated by commas. Default: all.")
    ] = None,
) -> None:
    """Run a worker: it runs processors on events."""
    arguments = ["worker"]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    if queues is not None:
        arguments += ["--queues", queues]
    _become_workers(arguments)


def relay() -> None:
    """Run a relay: it finds work that no worker holds and dispatches it."""
    _become_workers(["relay"])


def migrate() -> None:
    """Migrate the database's schema to the newest revision."""
    from sqlalchemy.exc import SQLAlchemyError

    from ingest.store import migrations
    from ingest.store.engine import Role, create_engine

    configured = settings.load()
    database = configured.migration_database
    target = migrations.Target(schema=database.schema, read_model=configured.read_model)
    engine = create_engine(database, role=Role.MIGRATION)
    try:
        with engine.connect() as connection:
            before = migrations.state(connection, target)
        made = migrations.prepare(
            engine,
            target,
            today=datetime.now(UTC).date(),
            days_ahead=configured.partition_days_ahead,
        )
    except SQLAlchemyError as error:
        raise migration_failed(error, database) from error
    finally:
        engine.dispose()
    output.line(_migrated(before))
    if not made:
        output.line(
            "The deliveries are being read:"
            " the relay will create the partitions of the next days later."
        )


def _migrated(before: "State") -> str:
    if before.is_newer:
        return (
            f"The schema is at {before.revision}, newer than this code ({before.newest}). The code"
            " runs with it. Nothing was changed."
        )
    if before.revision == before.newest:
        return f"The schema is at {before.newest}."
    return f"Migrated from {before.revision or 'nothing'} to {before.newest}."


def _begin_logging(configured: Settings) -> None:
    logs.configure(configured.log_level, configured.log_format)
    environment.report(os.environ, logs.logger(__name__))


def _serve(server: "uvicorn.Server", listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    # uvicorn shuts down cleanly and then raises the signal again, which must not look like a crash.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])


def _become_workers(arguments: list[str]) -> None:
    """Replace this process, because this package never imports `workers`."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "workers", *arguments])  # noqa: S606
