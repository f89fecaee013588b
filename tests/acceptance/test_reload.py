"""`ingest up --reload`, as somebody who writes a processor lives it."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.up import Up
from tests.support.waiting import until

MODULE = """
from workers import processor

@processor({types})
def ship(event, db):
    if {fails}:
        raise ValueError("version {version}")
"""


def states(up: Up) -> list[str]:
    lines = up.command("events", "list", "--json").splitlines()
    return sorted(json.loads(line)["state"] for line in lines)


def test_saved_code_runs_and_a_broken_save_stops_nothing(
    make_up: Callable[..., Up], tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    module = folder / "parcels.py"
    module.write_text("from workers import processr\n")
    up = make_up(
        "--reload",
        folder=folder,
        INGEST_PROCESSORS="parcels",
        INGEST_MAX_ATTEMPTS="1000",
        INGEST_RETRY_BASE_S="0.1",
        INGEST_RETRY_MAX_DELAY_S="1",
    ).wait_until_ready()
    until(lambda: "parcels.py, line 1: ImportError" in up.said)
    up.command("send", "parcel.sent")
    until(lambda: up.stats()["deliveries"]["accepted"] == 1)

    module.write_text(MODULE.format(types="'parcel.*'", fails=True, version=1))
    until(lambda: "parcels.py: the workers start with" in up.said)
    up.command("send", "parcel.lost")
    up.command("send", "refund.made")
    until(lambda: {"retrying", "unhandled"} <= set(states(up)))

    module.write_text("def broken(:\n")
    until(lambda: "parcels.py, line 1: SyntaxError" in up.said)
    module.write_text(MODULE.format(types="'parcel.*', 'refund.*'", fails=False, version=2))
    until(lambda: up.said.count("parcels.py: the workers start with") == 2)
    offer = "1 unhandled refund.made event has a processor now: ingest replay"
    until(lambda: offer in up.said)
    until(lambda: states(up) == ["succeeded", "succeeded", "unhandled"])
