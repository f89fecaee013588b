"""A network between a process and a server that holds back, loses, delays and cuts."""

import asyncio
import contextlib
import enum
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from ingest.local import postgres, valkey
from tests.faults.world import World

_CHUNK = 65_536
_DELAY_S = 0.15
_CUTS = 20
_LOOKS_S = 0.02
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


class Weather(enum.Enum):
    """What becomes of bytes."""

    FAIR = enum.auto()
    HELD = enum.auto()
    """Nothing passes either way; what was sent passes once it is fair, however late."""
    DEAF = enum.auto()
    """What is asked arrives, and no answer comes back."""
    SLOW = enum.auto()
    """Everything passes late."""


Strike = Callable[[World, Random], None]


class Network:
    """Sockets that lead to a server's, from `with` to its end."""

    def __init__(self, folder: Path, server: Path) -> None:
        """Listen at `folder` for what `server`, a socket, is to be sent."""
        self.weather = Weather.FAIR
        self._address = folder / server.name
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._ended = asyncio.Event()
        self._lines: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._address.unlink(missing_ok=True)

    def cut(self) -> None:
        """End all connections at once."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for line in list(self._lines):
            line.transport.abort()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with await asyncio.start_unix_server(self._connect, self._address):
            self._is_ready.set()
            await self._ended.wait()
            self._abort()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._server)
        except OSError:
            writer.transport.abort()
            self._lines.discard(writer)
            return
        self._lines.add(far_writer)
        held = {Weather.HELD, Weather.DEAF}
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, held={Weather.HELD}),
                self._pass(far_reader, writer, held=held),
            )
        finally:
            self._lines -= {writer, far_writer}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: set[Weather]
    ) -> None:
        """Pass bytes on until one side ends; what is held back comes once it is fair."""
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.weather is Weather.SLOW:
                    await asyncio.sleep(_DELAY_S)
                while self.weather in held:  # noqa: ASYNC110 - another thread changes it
                    await asyncio.sleep(_LOOKS_S)
                writer.write(data)
                await writer.drain()
        writer.close()


def between(kind: str, server: Server, weather: Weather) -> Strike:
    """Return a strike: one of two processes of a kind has such weather to a server for a while."""

    def strike(world: World, random: Random) -> None:
        with _rerouted(world, kind, server) as network:
            network.weather = weather
            world.fleet.wait(random.uniform(6, 10))
            if weather is Weather.DEAF:
                network.cut()
            network.weather = Weather.FAIR
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
        world.start(kind, _SECOND, more)
        try:
            if kind == "receiver":  # the sender's connections move to the one that is there
                world.start(kind, _FIRST)
            yield network
        finally:
            network.weather = Weather.FAIR
            world.start(kind, _SECOND)
