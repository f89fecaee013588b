"""Podman with a folder of its own, and podman-compose on it.

Without a registry, the images that the Dockerfile and the compose file name are made from Debian's
packages (`images/Containerfile`).
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.support.signing import signed_headers

ROOT = Path(__file__).parents[2]
IMAGES = Path(__file__).parent / "images"
STAND_INS = {"python": "python:3.13-slim", "postgres": "postgres:18", "redis": "redis:8"}
TOOLS = ("podman", "runc", "mmdebstrap", "catatonit")
PACKAGES = ("podman", "runc", "netavark", "aardvark-dns", "iptables", "mmdebstrap", "catatonit")

PASSWORD = "correct horse battery staple"
_DEBIAN = "deb http://deb.debian.org/debian bookworm main"
_INCLUDED = (
    "python3,python3-venv,python-is-python3,binutils,ca-certificates,postgresql-15,redis-server"
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_TIMEOUT_S = 1_800
"""Of one command. Making the images takes minutes, and what hangs must end."""
_BASE = ROOT / ".images" / "debian.tar"
_FILES = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

# Podman 4.3 cannot start a container whose dependency has a dependency of its own, so the
# dependencies are left to podman-compose.
_WRAPPER = """#!/bin/bash
export CONTAINERS_CONF={conf}
arguments=()
for argument in "$@"; do
    case "$argument" in --requires=*) ;; *) arguments+=("$argument") ;; esac
done
exec podman --root {folder}/root --runroot {folder}/run --log-level fatal "${{arguments[@]}}"
"""
_CONF = """[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{runc}"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


class Engine:
    """Podman, which keeps images and containers in `folder` only."""

    def __init__(self, folder: Path) -> None:
        """Make the folder ready; nothing is built yet."""
        conf = folder / "containers.conf"
        conf.write_text(_CONF.format(files=_FILES, runc=shutil.which("runc"), folder=folder))
        self.path = folder / "podman"
        self.path.write_text(_WRAPPER.format(folder=folder, conf=conf))
        self.path.chmod(0o755)
        self._folder = folder

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run a command of podman's, and return what it prints.

        Raises:
            AssertionError: it failed.
        """
        return _run([str(self.path), *arguments], stdin=stdin, check=check)

    def make_images(self) -> None:
        """Make the stand-ins, then build the image as the compose file calls it."""
        if not _BASE.exists():
            _BASE.parent.mkdir(exist_ok=True)
            made = _BASE.with_suffix(".new.tar")
            options = ["--variant=minbase", f"--include={_INCLUDED}"]
            _run(["mmdebstrap", *options, "bookworm", str(made), _DEBIAN])
            made.rename(_BASE)
        self.run("import", "--quiet", str(_BASE), "localhost/debian")
        context = self._folder / "context"
        shutil.copytree(IMAGES, context)
        shutil.copy(_CERTIFICATES, context)
        for target, name in STAND_INS.items():
            tag = f"docker.io/library/{name}"
            file = str(context / "Containerfile")
            self.run("build", "-q", "--target", target, "-t", tag, "-f", file, str(context))
        self.run("build", "-q", "--network=host", "-t", "localhost/webhook-ingest", str(ROOT))

    def make_user(self) -> str:
        """Return a line of the console's users: `me`, with `PASSWORD`."""
        create = ["run", "-i", "--rm", "localhost/webhook-ingest", "console", "create-user", "me"]
        return self.run(*create, stdin=f"{PASSWORD}\n")

    def remove_all(self) -> None:
        """Stop and remove every container and image of this engine."""
        self.run("pod", "rm", "--all", "--force", "--time=0", check=False)
        self.run("rm", "--all", "--force", "--time=0", check=False)
        self.run("rmi", "--all", "--force", check=False)
        self.run("network", "prune", "--force", check=False)


def check_confinement(engine: Engine, container: str) -> None:
    """Assert that a container's process is the user 10001, without capabilities and unable to gain
    any, and writes to /tmp only."""
    inside = ["exec", container]
    status = engine.run(*inside, "grep", "-E", "^(Uid|CapEff|NoNewPrivs)", "/proc/1/status")
    fields = dict(line.split(":") for line in status.splitlines())
    assert set(fields["Uid"].split()) == {"10001"}
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    script = "! touch /opt/app/x 2>/dev/null && ! touch /x 2>/dev/null && touch /tmp/x"
    engine.run(*inside, "sh", "-c", script)


class Project:
    """The compose file in a folder of its own, with its secrets."""

    def __init__(
        self, engine: Engine, folder: Path, ports: Mapping[str, int], *, name: str = "trial"
    ) -> None:
        """Copy what a user has of the repository; `ports` are variables of the compose file."""
        self.engine = engine
        self.folder = folder
        self.name = name
        self._ports = ports
        self._environment = os.environ | {name: str(port) for name, port in ports.items()}
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        _run(["sh", "deploy/docker/secrets.sh"], folder=folder)

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a command of podman-compose's, and return what it prints."""
        program = [str(Path(sys.executable).parent / "podman-compose")]
        options = ["--podman-path", str(self.engine.path), "-p", self.name]
        command = [*program, *options, *arguments]
        return _run(command, folder=self.folder, environment=self._environment, check=check)

    def port(self, name: str) -> int:
        """Return the port that a variable of the compose file says."""
        return self._ports[name]

    def up(self) -> None:
        """Start everything, with three workers."""
        self.compose("up", "--no-build", "--detach", "--scale", "worker=3")

    def post(self, body: bytes) -> bool:
        """Send a signed body as the sender does; return whether it was answered 200."""
        secret = (self.folder / "secrets" / "awalchat_secrets").read_text().strip()
        sender = HTTPConnection("127.0.0.1", self.port("RECEIVER_PORT"), timeout=300)
        try:
            sender.request("POST", "/webhooks/awalchat", body, signed_headers(body, secret=secret))
            return sender.getresponse().status == 200
        except (OSError, HTTPException):  # not up yet, or not any more
            return False
        finally:
            sender.close()

    def names(self) -> list[str]:
        """Return the names of the running containers."""
        return self.engine.run("ps", "--format", "{{.Names}}").split()

    def execute(self, container: str, *command: str) -> str:
        """Run a command in a container of the project, and return what it prints."""
        return self.engine.run("exec", f"{self.name}_{container}", *command)

    def query(self, statement: str) -> str:
        """Run a statement as the superuser; return its rows, columns separated by `|`."""
        psql = ["psql", "--username=postgres", "--dbname=ingest", "-Atc", statement]
        return self.execute("postgres_1", *psql).strip()


def _run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    check: bool = True,
) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=stdin,
        timeout=_TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3_000:]}")
    return done.stdout
