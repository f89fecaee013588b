"""The ports that tests are given."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import ports
from tests.support.ports import free_port

TAKE_TEN = "from tests.support.ports import free_port\nprint(*(free_port() for _ in range(10)))"


def of_another_process(_: int) -> list[int]:
    command = [sys.executable, "-c", TAKE_TEN]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [int(port) for port in printed.split()]


def test_no_two_processes_are_given_one_port() -> None:
    with ThreadPoolExecutor(4) as pool:
        given = [port for part in pool.map(of_another_process, range(4)) for port in part]
    assert len(set(given)) == 40


def test_a_port_that_somebody_listens_on_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken = free_port()
    last = tmp_path / "last"
    monkeypatch.setattr(ports, "_LAST_PORT", last)
    last.write_text(str(taken - 1))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() != taken
    last.write_text(str(taken - 1))
    assert free_port() == taken


@pytest.mark.parametrize(
    ("kernel", "first", "last"),
    [
        ("32768\t60999\n", 12_000, 32_767),
        ("12000\t40000\n", 40_001, 65_535),
        ("1024\t65535\n", 12_000, 65_535),
        ("11000\t64900\n", 12_000, 65_535),
    ],
)
def test_the_wider_side_of_the_kernels_range_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: str, first: int, last: int
) -> None:
    told = tmp_path / "range"
    told.write_text(kernel)
    monkeypatch.setattr(ports, "_LINUX_RANGE", told)
    given = ports._server_ports()
    assert (given[0], given[-1]) == (first, last)


def test_after_the_last_port_comes_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    last = tmp_path / "last"
    monkeypatch.setattr(ports, "_LAST_PORT", last)
    every = ports._server_ports()
    monkeypatch.setattr(ports, "_is_free", lambda port: True)
    last.write_text(str(every[-1]))
    assert free_port() == every[0]


@pytest.mark.parametrize("text", ["", "12", "x", "-1", "\x00", "9" * 5_000])
def test_a_file_that_names_no_port_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    last = tmp_path / "last"
    last.write_text(text)
    monkeypatch.setattr(ports, "_LAST_PORT", last)
    assert free_port() in ports._server_ports()


def test_if_no_port_can_be_bound_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "_LAST_PORT", tmp_path / "last")
    monkeypatch.setattr(ports, "_is_free", lambda port: False)
    with pytest.raises(OSError, match="can be bound"):
        free_port()
