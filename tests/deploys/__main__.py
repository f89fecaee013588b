"""`python3 dev.py deploys`: replace everything under load behind a proxy, and show what the sender
saw."""

import argparse
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from rich.console import Console

from tests.deploys import proxies
from tests.deploys.run import Outcome, Run
from tests.deploys.world import DeployWorld, release_before
from tests.support.servers.debian import make_certificates

_SHORT_RATE = 90.0
"""Three senders, three proxies and everything else, on two cores."""


def main() -> int:
    """Return 0 if no request failed in a deploy, and nothing was lost, doubled or spent."""
    arguments = _arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    names = _installed(arguments.only or list(proxies.PROXIES), console)
    rate = arguments.rate or (_SHORT_RATE if arguments.short else 500.0)
    is_together = arguments.short or arguments.together
    groups = [names] if is_together else [[name] for name in names]
    outcomes = [_run(group, rate, arguments) for group in groups]
    for outcome in outcomes:
        _show(outcome, console)
    return int(any(outcome.problems for outcome in outcomes))


def _installed(names: Sequence[str], console: Console) -> list[str]:
    lacking = {name: what for name in names if (what := proxies.lacking(name)) is not None}
    if lacking and (os.environ.get("CI") or len(lacking) == len(names)):
        raise SystemExit("; ".join(f"{name}: {what}" for name, what in lacking.items()))
    for name, what in lacking.items():
        console.print(f"left out: {name} ({what})")
    return [name for name in names if name not in lacking]


def _run(names: Sequence[str], rate: float, arguments: argparse.Namespace) -> Outcome:
    home = Path(tempfile.mkdtemp(prefix="ingest-deploys-"))
    home.chmod(0o755)  # nginx's processes become another user
    before = home / "before"
    before.mkdir()
    world = DeployWorld(home, release_before(before))
    try:
        certificates = make_certificates(home)
        random = Random(secrets.randbelow(10**6))
        run = Run(world, certificates, names, random, is_plain=arguments.plain)
        return run.run(rate=rate, rolls=0 if arguments.short else 1)
    finally:
        world.close()
        if not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)


def _show(outcome: Outcome, console: Console) -> None:
    for row in outcome.rows:
        others = {name: count for name, count in row.answers.items() if name != "200"}
        console.print(
            f"{row.proxy:8} {row.phase:20} {row.seconds:6.1f} s"
            f"  answered 200: {row.answers.get('200', 0):6,}  failed: {others or 0}"
            f"  slowest answer: {row.slowest_s:.2f} s"
        )
    console.print(f"attempts by outcome: {outcome.attempts or 'each the first, and it succeeded'}")
    for problem in outcome.problems:
        console.print(problem, style="red")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py deploys", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one deploy, all proxies at once")
    parser.add_argument("--together", action="store_true", help="all proxies share the rate")
    parser.add_argument("--plain", action="store_true", help="HTTP to the proxies instead of TLS")
    parser.add_argument("--only", action="append", choices=list(proxies.PROXIES), metavar="PROXY")
    parser.add_argument("--rate", type=float, help="events a second (default: 500; short: 90)")
    parser.add_argument(
        "--keep", action="store_true", help="keep logs and journals in /tmp/ingest-deploys-…"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
