"""deploy/systemd, by systemd's own reading. Nothing is started."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ingest.cli.processes import GRACEFUL_SHUTDOWN_S, WORKER_ENDS_S
from ingest.settings import variables

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = sorted(path.name for path in UNITS.glob("*.service"))
MOST_EXPOSED = 2.0
"""Of 10, by `systemd-analyze security`: 1.4 where it was measured."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists and an instance of each template."""
    if shutil.which("systemd-analyze") is None:
        reason = "systemd-analyze is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/ingest/bin/ingest", "/bin/true"))
    return folder


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_PAGER": ""},
        cwd=units,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_systemd_reads_each_unit_without_a_complaint(units: Path, name: str) -> None:
    done = analyze(units, "verify", "--man=no", str(units / name.replace("@.", "@1.")))
    complaints = [line for line in done.stderr.splitlines() if "ingest" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("unit", ["ingest-receiver@", "ingest-worker@", "ingest-console"])
def test_systemd_reads_a_unit_with_the_keys_of_bodies(units: Path, unit: str) -> None:
    folder = units / f"{unit}.service.d"
    folder.mkdir()
    shutil.copy(UNITS / "encryption.conf", folder)
    done = analyze(units, "verify", "--man=no", str(units / f"{unit}.service".replace("@.", "@1.")))
    complaints = [line for line in done.stderr.splitlines() if "ingest" in line or "keys" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_each_unit_is_confined(units: Path, name: str) -> None:
    threshold = f"--threshold={MOST_EXPOSED * 10:.0f}"
    done = analyze(units, "security", "--offline=yes", threshold, str(units / name))
    assert done.returncode == 0, done.stdout + done.stderr


def seconds(name: str, key: str) -> float:
    (line,) = [
        line for line in (UNITS / name).read_text().splitlines() if line.startswith(f"{key}=")
    ]
    return float(line.rpartition("=")[2].removesuffix("s"))


def test_none_is_killed_before_its_drain_time_is_over() -> None:
    delay_s = seconds("ingest-receiver@.service", "Environment=INGEST_SHUTDOWN_DELAY_S")
    receiver_s = seconds("ingest-receiver@.service", "TimeoutStopSec")
    assert receiver_s >= delay_s + GRACEFUL_SHUTDOWN_S + 10
    drain_s = variables()["WORKER_DRAIN_S"].default
    assert seconds("ingest-worker@.service", "TimeoutStopSec") >= drain_s + WORKER_ENDS_S


def test_every_environment_variable_is_a_setting_and_secrets_are_credentials() -> None:
    known = {f"INGEST_{name}" for name in variables()} | {"INGEST_AWALCHAT_SECRETS"}
    for path in [*UNITS.glob("*.service"), *UNITS.rglob("*.conf")]:
        lines = path.read_text().splitlines()
        given = [line.split("=", 2)[1:] for line in lines if line.startswith("Environment=INGEST_")]
        for variable, value in given:
            assert variable.removesuffix("_FILE") in known
            credential = value.removeprefix("%d/")
            assert not variable.endswith("_FILE") or any(
                line.startswith(f"LoadCredential={credential}:") for line in lines
            )
