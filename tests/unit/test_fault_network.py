"""The fault suite's network: it passes everything on, holds it back, delays it and cuts."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.network import Network, Passing
from tests.support.waiting import ENDS_WITHIN_S, until

NAME = "server.sock"


class Echo:
    """A server that answers with what it is sent, and keeps it."""

    def __init__(self, address: Path) -> None:
        self.got = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with closing(connection):
            try:
                while data := connection.recv(1_000):
                    self.got += data
                    connection.sendall(data)
            except OSError:
                return


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="net-") as path:
        (Path(path) / "network").mkdir()
        yield Path(path)


@pytest.fixture
def server(folder: Path) -> Iterator[Echo]:
    with closing(Echo(folder / NAME)) as echo:
        yield echo


@pytest.fixture
def network(folder: Path, server: Echo) -> Iterator[Network]:
    with Network(folder / "network", folder / NAME) as network:
        yield network


def connect(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(ENDS_WITHIN_S)
    client.connect(str(folder / "network" / NAME))
    return client


def is_cut(client: socket.socket) -> bool:
    """Whether the connection ends with nothing received; waits for that, or for a byte."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_everything_passes_both_ways(folder: Path, network: Network) -> None:
    with closing(connect(folder)) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
    assert network.held_back == 0


def test_what_is_held_back_passes_later(folder: Path, network: Network, server: Echo) -> None:
    with closing(connect(folder)) as client:
        network.passing = Passing.NOTHING
        client.sendall(b"hello")
        until(lambda: network.held_back > 0)
        assert server.got == b""
        network.passing = Passing.ALL
        assert client.recv(5) == b"hello"


def test_an_answer_is_held_back_of_what_has_arrived(
    folder: Path, network: Network, server: Echo
) -> None:
    with closing(connect(folder)) as client:
        network.passing = Passing.NO_ANSWER
        client.sendall(b"hello")
        until(lambda: server.got == b"hello" and network.held_back > 0)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(5)
        network.cut()
        client.settimeout(ENDS_WITHIN_S)
        assert is_cut(client)


def test_what_is_late_passes(folder: Path, network: Network) -> None:
    with closing(connect(folder)) as client:
        network.passing = Passing.LATE
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
    assert network.held_back == 2


def test_it_ends_while_clients_are_connected(folder: Path, server: Echo) -> None:
    with Network(folder / "network", folder / NAME) as network:
        clients = [connect(folder) for _ in range(5)]
        network.passing = Passing.NOTHING
        for client in clients:
            client.sendall(b"hello")
        until(lambda: network.held_back > 0)
    for client in clients:
        client.close()
    assert not (folder / "network" / NAME).exists()


def test_a_network_that_cannot_listen_says_so(folder: Path, server: Echo) -> None:
    (folder / "network" / NAME).mkdir()
    with (
        pytest.raises(OSError, match=NAME),
        Network(folder / "network", folder / NAME),
    ):
        pass
