"""A network between a process and a server that holds back, loses, delays and cuts."""

import asyncio
import contextlib
import enum
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from ingest.local import postgres, valkey
from tests.faults import processes
from tests.faults.strike import NotStruck, Strike
from tests.faults.world import World

_CHUNK = 65_536
_LATE_S = 0.15
_CUTS = 20
_LOOK_AGAIN_S = 0.02
_FIRST, _SECOND = 1, 2
"""The numbers of the processes of each kind; the second gets the bad network."""


class Server(enum.StrEnum):
    """What a process is connected to, by the name of its socket."""

    POSTGRES = ".s.PGSQL.5432"
    REDIS = "redis.sock"

    @property
    def product(self) -> str:
        """Return what it is."""
        return "PostgreSQL" if self is Server.POSTGRES else "Redis"


class Passing(enum.Enum):
    """What becomes of bytes."""

    ALL = enum.auto()
    NOTHING = enum.auto()
    """What was sent passes once all passes again, however late."""
    NO_ANSWER = enum.auto()
    """What is asked arrives, and no answer comes back."""
    LATE = enum.auto()


class Network:
    """A socket that leads to a server's, from `with` to its end."""

    def __init__(self, folder: Path, server_socket: Path) -> None:
        """Listen in `folder`, under the name of the server's socket."""
        self.passing = Passing.ALL
        self.held_back = 0
        """How often bytes had to wait, or were late, or a connection was cut."""
        self._address = folder / server_socket.name
        self._server = server_socket
        self._loop = asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._ended = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_ready.wait()
        self._raise()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._address.unlink(missing_ok=True)
        if error is None:
            self._raise()

    def cut(self) -> None:
        """End all connections at once."""
        self._loop.call_soon_threadsafe(self._abort)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _abort(self) -> None:
        self.held_back += len(self._writers)
        for writer in list(self._writers):
            writer.transport.abort()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # who waits for this thread raises it
            self._error = error
        finally:
            self._loop.close()
            self._is_ready.set()

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._connect, self._address)
        self._is_ready.set()
        await self._ended.wait()
        server.close()
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            self._abort()
            for task in rest:
                task.cancel()
            await asyncio.wait(rest)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = {writer}
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._server)
            writers.add(far_writer)
            self._writers.add(far_writer)
            await asyncio.gather(
                self._pass(reader, far_writer, held={Passing.NOTHING}),
                self._pass(far_reader, writer, held={Passing.NOTHING, Passing.NO_ANSWER}),
            )
        except (OSError, asyncio.CancelledError):  # the server is away, or this network ends
            pass
        finally:
            self._writers -= writers
            for one in writers:
                one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: set[Passing]
    ) -> None:
        """Pass bytes on until one side ends."""
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.passing is Passing.LATE:
                    self.held_back += 1
                    await asyncio.sleep(_LATE_S)
                while self.passing in held:
                    self.held_back += 1
                    await asyncio.sleep(_LOOK_AGAIN_S)
                writer.write(data)
                await writer.drain()
        writer.close()


def between(kind: str, server: Server, passing: Passing) -> Strike:
    """Return a strike: between one of two processes of a kind and a server so much passes for a
    while."""

    def strike(world: World, random: Random) -> None:
        with _rerouted(world, kind, server) as network:
            network.passing = passing
            world.fleet.wait(random.uniform(6, 10))
            if passing is Passing.NO_ANSWER:
                network.cut()
            network.passing = Passing.ALL
            world.fleet.wait(random.uniform(1, 2))

    return strike


def cutting(kind: str, server: Server) -> Strike:
    """Return a strike: its connections to a server are cut, again and again."""

    def strike(world: World, random: Random) -> None:
        with _rerouted(world, kind, server) as network:
            for _ in range(_CUTS):
                network.cut()
                world.fleet.wait(random.uniform(0, 0.4))

    return strike


@contextlib.contextmanager
def _rerouted(world: World, kind: str, server: Server) -> Iterator[Network]:
    """The second process of a kind, started anew, reaches a server by a network of ours."""
    folder = world.home / "network"
    folder.mkdir(mode=0o700, exist_ok=True)
    more = (
        {"INGEST_DATABASE_URL": postgres.url(folder)}
        if server is Server.POSTGRES
        else {"INGEST_REDIS_URL": valkey.url(folder)}
    )
    with Network(folder, world.sockets / server) as network:
        try:
            world.start(kind, _SECOND, more)
            if kind == "receiver":  # the sender's connections move to the one that is there
                processes.await_report(world, f"{kind}-{_SECOND}")
                world.start(kind, _FIRST)
                processes.await_report(world, f"{kind}-{_FIRST}")
            network.held_back = 0
            yield network
        finally:
            network.passing = Passing.ALL
            world.start(kind, _SECOND)
        if not network.held_back:
            raise NotStruck("nothing was held back or cut")
