"""The processes by themselves: `ingest serve`, `worker`, `relay`, `migrate`."""

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
CONSOLE_SHUTDOWN_S = 2
"""Live tails never end by themselves."""
CONSOLE_KEEP_ALIVE_S = 15
"""Browsers connect anew; it is senders' pools that need `keep_alive_s`."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    fd: Annotated[int | None, typer.Option(help="Listen on this inherited socket instead.")] = None,
) -> None:
    """Run a receiver."""
    import uvicorn

    from ingest.broker import refuse_cluster
    from ingest.receiver.app import create_receiver
    from ingest.store import startup_check

    given = settings.load(host=host, port=port)
    _begin_logging(given)
    startup_check.check(given.database)
    receiver = create_receiver(given)
    refuse_cluster(given.redis)
    listener = listen(given.host, given.port) if fd is None else socket.socket(fileno=fd)
    _serve(
        uvicorn.Config(
            receiver.app,
            loop="uvloop",
            http=receiver.http,
            ws="none",
            log_config=None,
            access_log=False,  # a line a request cost a third of the throughput
            server_header=False,
            timeout_keep_alive=given.keep_alive_s,
            proxy_headers=False,  # what strangers may hold is shared by who connects
            # One half-sent body would otherwise keep the process for ever.
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
        ),
        listener,
    )


def console(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    fd: Annotated[int | None, typer.Option(help="Listen on this inherited socket instead.")] = None,
) -> None:
    """Run the operator's console."""
    import uvicorn

    from ingest.console.app import create_app
    from ingest.receiver.server import protocol
    from ingest.store import startup_check

    given = settings.load(console_host=host, console_port=port)
    _begin_logging(given)
    startup_check.check(given.database)
    app = create_app(given)
    listener = (
        listen(given.console_host, given.console_port) if fd is None else socket.socket(fileno=fd)
    )
    _serve(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=protocol(given.max_inflight_body_bytes),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=CONSOLE_KEEP_ALIVE_S,
            proxy_headers=False,  # ingest.proxies believes those that the settings trust
            timeout_graceful_shutdown=CONSOLE_SHUTDOWN_S,
        ),
        listener,
    )


def worker(
    concurrency: Annotated[int | None, typer.Option(help="Processes that work at once.")] = None,
    queues: Annotated[
        str | None, typer.Option(help="Queues to consume, comma-separated; default: all.")
    ] = None,
) -> None:
    """Run a worker."""
    arguments = ["worker"]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    if queues is not None:
        arguments += ["--queues", queues]
    _become_workers(arguments)


def relay() -> None:
    """Run a relay."""
    _become_workers(["relay"])


def migrate() -> None:
    """Bring the database's schema up to date."""
    from sqlalchemy.exc import SQLAlchemyError

    from ingest.store import migrations
    from ingest.store.engine import Role, create_engine

    given = settings.load()
    database = given.migration_database
    target = migrations.Target(schema=database.schema, read_model=given.read_model)
    engine = create_engine(database, role=Role.MIGRATION)
    try:
        with engine.connect() as connection:
            before = migrations.state(connection, target)
        made = migrations.prepare(
            engine,
            target,
            today=datetime.now(UTC).date(),
            days_ahead=given.partition_days_ahead,
        )
    except SQLAlchemyError as error:
        raise migration_failed(error, database) from error
    finally:
        engine.dispose()
    output.line(_migrated(before))
    if not made:
        output.line("Somebody reads deliveries: the relay will make the coming days' partitions.")


def _migrated(before: "State") -> str:
    if before.is_newer:
        return (
            f"The schema is at {before.revision}, newer than this code ({before.newest}), which"
            " runs on it. Nothing was changed."
        )
    if before.revision == before.newest:
        return f"The schema is at {before.newest}."
    return f"Migrated from {before.revision or 'nothing'} to {before.newest}."


def _begin_logging(given: Settings) -> None:
    logs.configure(given.log_level, given.log_format)
    environment.report(os.environ, logs.logger(__name__))


def _serve(config: "uvicorn.Config", listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    import uvicorn

    server = uvicorn.Server(config)
    # uvicorn ends in good order and then raises the signal again: that must not look like a crash.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])


def _become_workers(arguments: list[str]) -> None:
    """Replace this process: the package `workers` is never imported by this one."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "workers", *arguments])  # noqa: S606
