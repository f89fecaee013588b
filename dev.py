#!/usr/bin/env python3
"""One command from a fresh clone: makes .venv, installs from requirements.lock, runs.

    python3 dev.py up          everything here: PostgreSQL, Redis, receiver, workers, relay
    python3 dev.py test        the whole test suite, against real servers
    python3 dev.py check       format, lint, types, dead code and words, before each commit
    python3 dev.py faults      the fault suite: real processes, broken under load (--help)
    python3 dev.py browser     the console in a real browser (needs Chromium)
    python3 dev.py bench       speed, beside what one would write or pick instead (--help)
    python3 dev.py mutations   break each promise in a copy, and see a test fail for it
    python3 dev.py docs        build docs/ as a site in site/ (--serve: show it while you write)
    python3 dev.py ANY ...     the same as `ingest ANY ...`

Needs Python 3.11 or newer with pip on Linux or macOS (Windows: WSL), and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"


def main() -> NoReturn:
    if sys.version_info < (3, 11) or os.name != "posix":
        sys.exit(f"dev.py needs Python 3.11 or newer on Linux or macOS, not {sys.version} here.")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    command, *rest = sys.argv[1:]
    try:
        ensure_environment("requirements.lock")
        if command in ("bench", "browser", "docs"):
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
    if command == "browser":
        os.chdir(ROOT)
        become("python", "-m", "pytest", "--numprocesses=0", "tests/browser", *rest)
    suites = {"faults": "tests.faults", "mutations": "tests.mutations", "bench": "tests.benchmarks"}
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
    """Write the page of settings anew, then build the site; a warning is an error."""
    os.chdir(ROOT)
    subprocess.run([BIN / "python", "docs/configuration.py"], check=True)
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # an advertisement of the theme's successor
    become("mkdocs", *(("serve",) if serve else ("build", "--strict", "--quiet")))


def ensure_environment(lock_file: str) -> None:
    """Install when the lock or the metadata changed; two runs at once wait for each other."""
    import fcntl

    installed = VENV / f"{lock_file}.sha256"
    wanted = fingerprint(lock_file)
    if is_installed(installed, wanted):
        return
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed(installed, wanted):
            print("dev.py: installing into .venv (once, about 20 s)", file=sys.stderr, flush=True)
            make_environment(lock_file)
            installed.write_text(wanted)


def fingerprint(lock_file: str) -> str:
    """What the environment is made from: the interpreter, the place, the lock, the metadata."""
    digest = hashlib.sha256(repr((sys.version_info[:3], str(ROOT))).encode())
    for name in (lock_file, "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_installed(installed: Path, wanted: str) -> bool:
    return installed.is_file() and installed.read_text() == wanted


def make_environment(lock_file: str) -> None:
    """Make .venv, or bring it up to date: what still runs from it goes on.

    Without ensurepip (Debian's python3 lacks it), the outer pip installs into it.
    """
    venv = [sys.executable, "-m", "venv"]
    made = subprocess.run([*venv, VENV], capture_output=True, check=False)
    if made.returncode == 0:
        pip = [str(BIN / "python"), "-m", "pip"]
    else:
        subprocess.run([*venv, "--clear", "--without-pip", VENV], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(BIN / "python")]
    install(pip, "--require-hashes", "-r", str(ROOT / lock_file))
    install(pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT))


def install(pip: list[str], *arguments: str) -> None:
    """Run `pip install`; what it says matters only when it fails."""
    done = subprocess.run(
        [*pip, "install", "--quiet", "--disable-pip-version-check", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        done.check_returncode()


def become(program: str, *arguments: str) -> NoReturn:
    """Replace this process by a program of the environment."""
    path = str(BIN / program)
    os.execv(path, [path, *arguments])


if __name__ == "__main__":
    main()
