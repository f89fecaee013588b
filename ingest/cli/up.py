"""`ingest up`: run everything on this machine, PostgreSQL and Redis included."""

import http.client
import os
import shlex
import socket
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from ingest import settings
from ingest.cli.database import migration_failed
from ingest.cli.listening import listen
from ingest.cli.processes import WORKER_ENDS_S
from ingest.cli.up_screen import EVERY_S, EVERY_S_UNSEEN, Counter, Screen
from ingest.local import postgres, valkey
from ingest.local.errors import EmbeddedError
from ingest.local.folder import DataFolder
from ingest.local.process import Program
from ingest.local.supervisor import StopRequested, Supervisor
from ingest.settings import DEFAULT_DATA, PREFIX, Settings
from ingest.sources import registry
from ingest.sources.base import Source
from ingest.store.address import Database, parse
from ingest.store.engine import Role, create_engine
from ingest.store.reports import unhandled

if TYPE_CHECKING:
    from ingest.local.reload import Reloader

_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Ignores the proxies of the environment: the processes here are not behind one."""


def up(
    data: Annotated[
        Path | None, typer.Option(help=f"Folder for all data.  [default: {DEFAULT_DATA}]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The receiver's port.  [default: 8000]")] = None,
    console_port: Annotated[
        int | None, typer.Option(help="The console's port.  [default: 8001]")
    ] = None,
    receivers: Annotated[
        int, typer.Option(min=1, help="Number of receivers; they share the port.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 1,
    relays: Annotated[int, typer.Option(min=1, help="Number of relays.")] = 1,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Restart the workers when a Python file here is saved."),
    ] = False,
) -> None:
    """Run everything on this machine until Ctrl-C, for trying and testing.

    The next `ingest up` continues with the same data."""
    began = time.monotonic()
    folder = DataFolder(data or Path(os.environ.get(f"{PREFIX}DATA") or DEFAULT_DATA))
    folder.hold()
    folder.withdraw()  # the address that a killed run left is stale
    folder.describe_sources()
    configured = settings.load(standalone=True, data=data, port=port, console_port=console_port)
    listener = listen(configured.host, configured.port)
    console_listener = listen(
        configured.console_host, configured.console_port, option="--console-port"
    )
    screen = Screen()
    supervisor = Supervisor(say=screen.say, lock_fd=folder.lock_fd)
    supervisor.take_signals()
    try:
        is_first = not (folder.path / "postgres").exists()
        screen.step("making the database, the first time" if is_first else "starting the servers")
        run = _start_servers(configured, folder, supervisor)
        screen.step("bringing the schema up to date")
        _migrate(run.migration_database, configured)
        screen.step("starting the receiver, the worker, the relay and the console")
        work = [run.process("worker", number, reload=reload) for number in range(1, workers + 1)]
        supervisor.start(
            [run.process("relay", number) for number in range(1, relays + 1)]
            + ([] if reload else work),
            [run.receiver(number, listener) for number in range(1, receivers + 1)]
            + [run.console(console_listener)],
        )
        run.publish()
        _greet(run, screen, time.monotonic() - began)
        counter = Counter(
            create_engine(run.database, role=Role.OPERATOR),
            every_s=EVERY_S if screen.is_terminal else EVERY_S_UNSEEN,
        )
        counter.start()
        reloader = _reloader(run, supervisor, screen, work) if reload else None

        def each_second() -> None:
            if reloader is not None:
                reloader.look()
            screen.show(counter.newest, now=time.monotonic())

        try:
            supervisor.watch(each_second)
        finally:
            if reloader is not None:
                reloader.close()
        screen.say("stopping")
    except (StopRequested, EmbeddedError):
        if not supervisor.is_stopping:
            raise
        screen.say("stopping before it was ready")
    finally:
        folder.withdraw()
        supervisor.stop()
    screen.say("stopped")


def _reloader(
    run: "_Run", supervisor: Supervisor, screen: Screen, workers: Sequence[Program]
) -> "Reloader":
    """Return what starts the workers, and starts them anew when a file was saved."""
    try:
        from ingest.local.reload import Changes, ImportTrial, Reloader
    except ModuleNotFoundError:
        raise EmbeddedError(
            "--reload needs watchfiles: pip install 'webhook-ingest[local]'.",
            reason="no_watchfiles",
        ) from None
    changes = Changes(Path.cwd())
    changes.start()
    engine = create_engine(run.database, role=Role.OPERATOR)

    def unhandled_types() -> dict[str, int]:
        try:
            with engine.connect() as connection:
                return unhandled.by_type(connection)
        except SQLAlchemyError:  # the status line says why
            return {}

    environment = dict(workers[0].env or os.environ)
    return Reloader(
        take=changes.take,
        begin_trial=lambda: ImportTrial(environment),
        restart=lambda: supervisor.replace(workers),
        unhandled=unhandled_types,
        say=screen.say,
        folder=Path.cwd(),
        replay_command=f"{_command(run)} replay",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The settings, addresses and secrets of this run, and the programs it starts."""

    settings: Settings
    folder: DataFolder
    database_url: str
    redis_url: str
    secrets: dict[str, str]
    """The secrets of each source that has some, by its slug, separated by commas."""

    @property
    def database(self) -> Database:
        """Return the database that this run uses."""
        return parse(self.database_url, schema=self.settings.database_schema)

    @property
    def migration_database(self) -> Database:
        """Return the same database, past a pooler if the settings say how."""
        settings = self.settings
        return settings.migration_database if settings.database_url else self.database

    def publish(self) -> None:
        """Let commands in this folder find this run."""
        self.folder.publish(
            {
                "database_url": self.database_url,
                "redis_url": self.redis_url,
                "host": self.settings.host,
                "port": self.settings.port,
                "console_host": self.settings.console_host,
                "console_port": self.settings.console_port,
                "sources": self._sources(),
                "source_files": "\n".join(
                    str(path.resolve()) for path in self.settings.source_files
                ),
            }
        )

    def _sources(self) -> dict[str, dict[str, Any]]:
        """Return what is set of each source, with the secrets of this run."""
        sources = {}
        for slug, configured in self.settings.sources.items():
            sources[slug] = {
                name: value.get_secret_value() if isinstance(value, SecretStr) else value
                for name, value in configured
                if name in configured.model_fields_set - {"secrets"}
            }
            if slug in self.secrets:
                sources[slug]["secrets"] = self.secrets[slug]
        return sources

    def process(self, kind: str, number: int, *, reload: bool = False) -> Program:
        """Return a worker or a relay. It is ready once its loop has touched its file.

        With `reload` it keeps no compiled modules: two saves within a second would share one.
        """
        name = f"{kind}-{number}"
        alive = self.folder.path / f"{name}.alive"
        alive.unlink(missing_ok=True)
        program = Program(
            name=name,
            command=[sys.executable, "-m", "workers", kind],
            log=self.folder.logs / f"{name}.log",
            ready=lambda _pid: alive.exists(),
            env=self._environment(HEARTBEAT_FILE=str(alive), **self._metrics_port(kind, number))
            | ({"PYTHONDONTWRITEBYTECODE": "1"} if reload else {}),
        )
        if kind == "worker":
            return replace(program, stop_timeout_s=self.settings.worker_drain_s + WORKER_ENDS_S)
        return program

    def receiver(self, number: int, listener: socket.socket) -> Program:
        """Return a receiver that listens on the socket that all receivers share."""
        name = f"receiver-{number}"
        host, port = listener.getsockname()[:2]
        return Program(
            name=name,
            command=[sys.executable, "-m", "ingest", "serve", "--fd", str(listener.fileno())],
            log=self.folder.logs / f"{name}.log",
            ready=lambda _pid: _answers(f"http://{_bracketed(host)}:{port}/health/ready"),
            env=self._environment(**self._metrics_port("receiver", number)) | self._secrets(),
            pass_fds=(listener.fileno(),),
        )

    def console(self, listener: socket.socket) -> Program:
        """Return the console."""
        host, port = listener.getsockname()[:2]
        return Program(
            name="console",
            command=[sys.executable, "-m", "ingest", "console", "--fd", str(listener.fileno())],
            log=self.folder.logs / "console.log",
            ready=lambda _pid: _answers(f"http://{_bracketed(host)}:{port}/health/live"),
            env=self._environment(
                HOST=self.settings.host,
                PORT=str(self.settings.port),
                CONSOLE_HOST=self.settings.console_host,
            )
            | self._secrets(),
            pass_fds=(listener.fileno(),),
        )

    def _metrics_port(self, kind: str, number: int) -> dict[str, str]:
        """Return the setting of a process's port for metrics: the first of its kind has the one
        that is set, the next ones have those after it."""
        first = self.settings.metrics_port(kind)
        return {} if first is None else {f"{kind.upper()}_METRICS_PORT": str(first + number - 1)}

    def _secrets(self) -> dict[str, str]:
        """Return the variables that hold each source's secrets."""
        sources = registry.classes()
        return {sources[slug].variable("secrets"): text for slug, text in self.secrets.items()}

    def _environment(self, **more: str) -> dict[str, str]:
        own = {
            "DATA": str(self.folder.path),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "LOG_FORMAT": "json",
            **more,
        }
        return dict(os.environ) | {f"{PREFIX}{name}": value for name, value in own.items()}


def _start_servers(configured: Settings, folder: DataFolder, supervisor: Supervisor) -> _Run:
    """Start PostgreSQL and Redis, except a server whose address is configured."""
    sockets = folder.sockets()
    programs: list[Program] = []
    if configured.database_url is None:
        postgres.clear_stale_lock(folder.path, sockets)
        programs.append(postgres.program(folder.path, sockets))
    if configured.redis_url is None:
        programs.append(valkey.program(folder.path, sockets))
    supervisor.start(programs)
    return _Run(
        settings=configured,
        folder=folder,
        database_url=_revealed(configured.database_url) or postgres.url(sockets),
        redis_url=_revealed(configured.redis_url) or valkey.url(sockets),
        secrets={
            slug: ",".join(source.secrets or [folder.secret(slug)])
            for slug, source in registry.configured(configured.sources).items()
            if source.secrets or not source.issues_secrets
        },
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _migrate(database: Database, configured: Settings) -> None:
    from ingest.store import migrations  # Alembic takes a while to import

    engine = create_engine(database, role=Role.MIGRATION)
    target = migrations.Target(schema=database.schema, read_model=configured.read_model)
    try:
        migrations.prepare(
            engine,
            target,
            today=datetime.now(UTC).date(),
            days_ahead=configured.partition_days_ahead,
        )
    except SQLAlchemyError as error:
        raise migration_failed(error, database) from error
    finally:
        engine.dispose()


def _greet(run: _Run, screen: Screen, seconds: float) -> None:
    screen.say(f"ready in {seconds:.1f} s; Ctrl-C stops it")
    for what, text in _in_a_terminal(run) if screen.is_terminal else _at_length(run):
        screen.line(f"  {what:<9} {text}".rstrip())


def _at_length(run: _Run) -> list[tuple[str, str]]:
    """Return what there is to know of this run, with whole addresses and paths."""
    lines = [("console", _console_url(run))]
    sources = _receiving(run)
    for source in sources:
        lines += [("post to", _url(run, source)), ("secret", _secret(run, source))]
    return [
        *lines,
        ("database", _database(run)),
        ("redis", "in INGEST_REDIS_URL" if run.settings.redis_url else run.redis_url),
        ("logs", str(run.folder.logs)),
        *(("send", f"{_command(run)} {_sending(run, source)}") for source in sources),
        ("look", f"{_command(run)} events list   (all in this folder)"),
    ]


def _in_a_terminal(run: _Run) -> list[tuple[str, str]]:
    """Return what a person does next. Paths begin at the present folder, so that most lines fit in
    80 columns."""
    lines = [("console", _console_url(run))]
    sources = _receiving(run)
    for source in sources:
        lines += [("post to", _url(run, source)), ("", f"secret {_secret(run, source)}")]
    lines += [("database", _database(run)), ("logs", _nearby(run.folder.logs))]
    lines += [("send", f"{_command(run)} {_sending(run, source)}") for source in sources]
    return [*lines, ("look", f"{_command(run)} events list"), ("", f"{_command(run)} stats")]


def _database(run: _Run) -> str:
    """Return the address of the database, without a password of the settings."""
    return str(run.database) if run.settings.database_url else run.database_url


def _console_url(run: _Run) -> str:
    return f"http://{_bracketed(run.settings.console_host)}:{run.settings.console_port}"


def _url(run: _Run, source: Source) -> str:
    return f"http://{_bracketed(run.settings.host)}:{run.settings.port}/webhooks/{source.slug}"


def _nearby(path: Path) -> str:
    """Return a path from the present folder on, if it is in there."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _secret(run: _Run, source: Source) -> str:
    """Return where the secret of a source is."""
    variable = source.variable("secrets")
    if source.secrets:
        return f"in {variable}"
    if source.issues_secrets:
        return f"none: set {variable}"
    path = run.folder.secret_file(source.slug)
    return f"in {_nearby(path) if sys.stdout.isatty() else path}"


def _receiving(run: _Run) -> list[Source]:
    """Return the sources to tell of: the default one, then the others that have a secret."""
    sources = registry.configured(run.settings.sources)
    slugs = dict.fromkeys((run.settings.default_source, *run.secrets))
    return [sources[slug] for slug in slugs]


def _sending(run: _Run, source: Source) -> str:
    """Return the arguments that send something as a source."""
    what = "--documented" if source.samples.documented else source.samples.types[0]
    is_default = source.slug == run.settings.default_source
    return f"send {what}" + ("" if is_default else f" --source {source.slug}")


def _command(run: _Run) -> str:
    """Return the command to type here.

    In a clone it is dev.py, because `ingest` is not on the path. A data folder that is not the
    default has to be named."""
    command = "python3 dev.py" if Path("dev.py").exists() else "ingest"
    data = run.folder.path
    if data == Path(DEFAULT_DATA).resolve() or os.environ.get(f"{PREFIX}DATA"):
        return command
    return f"{PREFIX}DATA={shlex.quote(os.path.relpath(data))} {command}"


def _answers(url: str) -> bool:
    try:
        with _DIRECTLY.open(url, timeout=2):
            return True
    except (http.client.HTTPException, OSError):
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
