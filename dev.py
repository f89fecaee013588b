#!/usr/bin/env python3
"""Create .venv, install from requirements.lock, and run a command: all from a fresh clone.

    python3 dev.py up          run everything here: PostgreSQL, Redis, receiver, workers, relay
    python3 dev.py test        run tests of each promise, in minutes; `test tests`: all of them
    python3 dev.py check       check format, lint, types, dead code and words, before each commit
    python3 dev.py faults      run the fault suite: break real processes under load (--help)
    python3 dev.py model       visit every state that the protocol can come to (--help)
    python3 dev.py power       cut the power of PostgreSQL's disk under load (needs root, fuse3)
    python3 dev.py ha          lose the primary of a replicated PostgreSQL under load (needs root)
    python3 dev.py outage      a service that a processor calls is down for ten minutes (--help)
    python3 dev.py deploys     replace everything under load behind nginx, HAProxy, Caddy (--help)
    python3 dev.py monitoring  make each alert fire on a real Prometheus (needs it; --help)
    python3 dev.py browser     test the console in a real browser (needs Chromium)
    python3 dev.py container   build the image and run docker-compose.yml (needs podman and root)
    python3 dev.py bench       measure speed and compare with alternatives (--help)
    python3 dev.py harness     run the public benchmark of job queues on a clone of it (--help)
    python3 dev.py mutations   break each promise in a copy and check that a test fails
    python3 dev.py docs        build docs/ as a site in site/ (--serve: show it while you write)
    python3 dev.py ANY ...     run `ingest ANY ...`

Needs Python 3.11 or newer with pip on Linux or macOS (Windows: WSL), and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
BAR = 30
"""Characters of a bar."""


def main() -> NoReturn:
    if sys.version_info < (3, 11) or os.name != "posix":
        sys.exit(f"dev.py needs Python 3.11 or newer on Linux or macOS, not {sys.version} here.")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    command, *rest = sys.argv[1:]
    try:
        ensure_environment("requirements.lock")
        if command in ("bench", "browser", "container", "docs", "harness"):
            ensure_environment(f"requirements-{command}.lock")
    except subprocess.CalledProcessError as error:
        sys.exit(f"dev.py: the installation failed (exit {error.returncode}); see above.")
    except KeyboardInterrupt:
        sys.exit(130)
    if command == "test":
        os.chdir(ROOT)
        become("python", "-m", "pytest", *rest)
    if command == "check":
        sys.exit(check())
    if command == "docs":
        build_docs(serve="--serve" in rest)
    if command in ("browser", "container"):
        os.chdir(ROOT)
        become("python", "-m", "pytest", "--numprocesses=0", f"tests/{command}", *rest)
    suites = {
        "faults": "tests.faults",
        "model": "tests.model",
        "power": "tests.power",
        "ha": "tests.high_availability",
        "deploys": "tests.deploys",
        "outage": "tests.outage",
        "monitoring": "tests.monitoring",
        "mutations": "tests.mutations",
        "bench": "tests.benchmarks",
        "harness": "tests.harness",
    }
    if command in suites:
        os.chdir(ROOT)
        become("python", "-m", suites[command], *rest)
    become("ingest", command, *rest)


RULES = ("test_architecture.py", "test_glossary.py")
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("vulture",),
    ("python", "-m", "pytest", "-q", "--numprocesses=0", *(f"tests/unit/{name}" for name in RULES)),
)


def check() -> int:
    """Run every check, and return 1 if any of them fails."""
    codes = []
    for tool, *arguments in CHECKS:
        print(f"dev.py: {' '.join((tool, *arguments))}", file=sys.stderr, flush=True)
        codes.append(subprocess.run([BIN / tool, *arguments], cwd=ROOT, check=False).returncode)
    return int(any(codes))


def build_docs(*, serve: bool) -> NoReturn:
    """Write the pages that scripts write anew, then build the site; a warning is an error."""
    os.chdir(ROOT)
    for page in ("configuration", "metrics", "alerts", "senders", "capacity", "tasks"):
        subprocess.run([BIN / "python", f"docs/{page}.py"], check=True)
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # an advertisement of the theme's successor
    become("mkdocs", *(("serve",) if serve else ("build", "--strict", "--quiet")))


def ensure_environment(lock_file: str) -> None:
    """Install if the lock file or the metadata changed. Concurrent runs wait for each other."""
    import fcntl

    installed = VENV / f"{lock_file}.sha256"
    expected = fingerprint(lock_file)
    if is_installed(installed, expected):
        return
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed(installed, expected):
            say("installing into .venv, once; this takes about 20 s")
            make_environment(lock_file)
            installed.write_text(expected)
            say("installed")


def fingerprint(lock_file: str) -> str:
    """Return a digest of what the environment depends on: Python, folder, lock file, metadata."""
    digest = hashlib.sha256(repr((sys.version_info[:3], str(ROOT))).encode())
    for name in (lock_file, "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_installed(installed: Path, expected: str) -> bool:
    return installed.is_file() and installed.read_text() == expected


def make_environment(lock_file: str) -> None:
    """Create or update .venv. Programs that run from it continue to run.

    Without ensurepip (Debian's python3 lacks it), the pip outside installs into it.
    """
    say("1 of 3: making .venv")
    venv = [sys.executable, "-m", "venv"]
    made = subprocess.run([*venv, VENV], capture_output=True, check=False)
    if made.returncode == 0:
        pip = [str(BIN / "python"), "-m", "pip"]
    else:
        subprocess.run([*venv, "--clear", "--without-pip", VENV], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(BIN / "python")]
    packages = (ROOT / lock_file).read_text().count("==")
    say(f"2 of 3: installing up to {packages} packages of {lock_file}")
    install(pip, "--require-hashes", "-r", str(ROOT / lock_file), packages=packages)
    say("3 of 3: installing ingest itself")
    install(pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT), packages=1)


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def install(pip: list[str], *arguments: str, packages: int) -> None:
    """Run `pip install`. In a terminal show a bar; print its messages only when it fails."""
    command = [*pip, "install", "--disable-pip-version-check", "--progress-bar=off", *arguments]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        ) as running,
    ):
        assert running.stdout is not None
        show_progress(running.stdout, packages)
        code = running.wait()
        if code != 0:
            errors.seek(0)
            sys.stderr.write(errors.read())
            raise subprocess.CalledProcessError(code, command)


def show_progress(lines: Iterable[str], packages: int) -> None:
    """Show how many of the packages pip has fetched, by its own words, and then that it unpacks."""
    is_terminal, fetched = sys.stderr.isatty(), 0
    for line in lines:
        first, _, rest = line.partition(" ")
        if first == "Collecting" or line.startswith("Requirement already satisfied"):
            fetched += 1
            name = rest.split("==")[0].split()[-1][:30]
            doing = f"{fetched} of {packages}  {name}"
        elif line.startswith("Installing collected"):
            doing = "unpacking them"
        else:
            continue
        if is_terminal:
            done = BAR * min(fetched, packages) // packages
            bar = "#" * done + "." * (BAR - done)
            sys.stderr.write(f"\r\x1b[K  [{bar}] {doing}")
            sys.stderr.flush()
    if is_terminal:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def become(program: str, *arguments: str) -> NoReturn:
    """Replace this process with a program of the environment."""
    path = str(BIN / program)
    os.execv(path, [path, *arguments])


if __name__ == "__main__":
    main()
