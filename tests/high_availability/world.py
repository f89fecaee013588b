"""The fault suite's world on a PostgreSQL of two machines, which Patroni and etcd tend, and a Redis
of two, which Sentinels tend."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import redis

from ingest.local.process import Program
from tests.faults.world import World
from tests.high_availability.network import Network, Node
from tests.support.servers import debian

TTL_S = 20
LOOP_S = 5
_USER = "postgres"
_MASTER = "ingest"
_REDIS_DOWN_AFTER_MS = 3_000
_ETCD_PORT = 2379


class ClusterWorld(World):
    """Two machines with PostgreSQL, two with Redis and a Sentinel, a witness with etcd and the
    third Sentinel, and our processes beside them."""

    def __init__(self, home: Path, *, synchronous: bool) -> None:
        """Start it all in `home`; `synchronous` is Patroni's `synchronous_mode`."""
        self._synchronous = synchronous
        self.witness = Node("witness", 13)
        self.databases = (Node("pg1", 11), Node("pg2", 12))
        self.redises = (Node("redis1", 21), Node("redis2", 22))
        self._network = Network((*self.databases, *self.redises, self.witness))
        super().__init__(home)

    @property
    def database_url(self) -> str:
        """The address of both machines, as our processes are given it."""
        hosts = ",".join(f"{node.address}:5432" for node in self.databases)
        return f"postgresql://{_USER}@{hosts}/postgres"

    @property
    def redis_url(self) -> str:
        """The address of the three Sentinels."""
        hosts = ",".join(f"{node.address}:26379" for node in (*self.redises, self.witness))
        return f"redis+sentinel://{hosts}/{_MASTER}"

    def connect(self) -> psycopg.Connection:
        """A connection to the primary."""
        options = urlencode({"target_session_attrs": "read-write", "connect_timeout": 2})
        return psycopg.connect(f"{self.database_url}?{options}", autocommit=True)

    def primary(self) -> Node | None:
        """Return the machine that takes writes; None: there is none just now."""
        return next((node for node in self.databases if self._is_primary(node)), None)

    def other(self, node: Node) -> Node:
        """Return the other one of two."""
        pair = self.databases if node in self.databases else self.redises
        return next(other for other in pair if other is not node)

    def master(self) -> Node | None:
        """Return the machine that the witness takes for Redis's master."""
        with redis.Redis(
            self.witness.address, 26379, socket_timeout=2, decode_responses=True
        ) as client:
            found = client.sentinel_get_master_addr_by_name(_MASTER)
        return next((node for node in self.redises if found and node.address == found[0]), None)

    def await_replica(self) -> None:
        """Wait until Redis's master has its replica again."""
        self.fleet.until(self._has_replica, what="the replica follows", timeout_s=120)

    def _has_replica(self) -> bool:
        master = self.master()
        if master is None:
            return False
        try:
            with redis.Redis(master.address, socket_timeout=2) as client:
                found = client.info("replication")
        except redis.RedisError:
            return False
        return bool(found["role"] == "master" and found["connected_slaves"] == 1)

    def await_primary(self, node: Node) -> None:
        """Wait until a machine takes writes."""
        self.fleet.until(
            lambda: self._is_primary(node), what=f"{node.name} is promoted", timeout_s=180
        )

    def await_standby(self) -> None:
        """Wait until the primary has its standby again."""
        self.fleet.until(self._has_standby, what="the standby follows", timeout_s=240)
        self.engine.dispose()

    def kill(self, node: Node) -> None:
        """SIGKILL all of a machine, and leave it down."""
        for member in self.fleet.named(node.name):
            member.held_down = True
        node.signal(signal.SIGKILL)

    def start_again(self, node: Node) -> None:
        """Start a machine that was killed."""
        for member in self.fleet.named(node.name):
            self.fleet.bring_back(member)

    def failovers(self) -> int:
        """Return how often a standby was promoted: each begins a new timeline."""
        with self.connect() as connection:
            row = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()
        assert row is not None
        return int(row[0][:8], 16) - 1

    def close(self) -> None:
        """Kill everything, and unmake the machines: to end in order, a process may need a server
        that is not there just now."""
        with _uninterrupted():
            for member in self.fleet.members.values():
                member.process.kill()
            super().close()
            self._network.remove()

    def start_servers(self) -> None:
        for node in self.redises:
            self.fleet.start(self._redis(node))
        for node in (*self.redises, self.witness):
            self.fleet.start(self._sentinel(node))
        self.await_replica()
        self.fleet.start(self._etcd())
        for node in self.databases:
            self.fleet.start(self._patroni(node))

    def _is_primary(self, node: Node) -> bool:
        address = f"postgresql://{_USER}@{node.address}:5432/postgres?connect_timeout=2"
        try:
            with psycopg.connect(address) as connection:
                row = connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()
        except psycopg.Error:
            return False
        return row is not None and bool(row[0])

    def _has_standby(self) -> bool:
        states = "('sync', 'quorum')" if self._synchronous else "('async')"
        query = f"""
            SELECT count(*) FROM pg_stat_replication
            WHERE state = 'streaming' AND sync_state IN {states}
        """
        try:
            with self.connect() as connection:
                row = connection.execute(query.encode()).fetchone()
        except psycopg.Error:
            return False
        return row is not None and row[0] == 1

    def _etcd(self) -> Program:
        url = f"http://{self.witness.address}:{_ETCD_PORT}"
        peers = f"http://{self.witness.address}:2380"
        return Program(
            name="etcd",
            command=self.witness.command(
                *("etcd", "--name", "witness", "--data-dir", str(self.home / "etcd")),
                *("--listen-client-urls", url, "--advertise-client-urls", url),
                *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
                *("--initial-cluster", f"witness={peers}"),
            ),
            log=self.home / "logs" / "etcd.log",
            stop_signal=signal.SIGKILL,
        )

    def _redis(self, node: Node) -> Program:
        folder = self.home / node.name
        folder.mkdir()
        first = self.redises[0]
        lines = [
            f"bind {node.address} 127.0.0.1",
            "protected-mode no",
            'save ""',
            f"dir {folder}",
            "repl-timeout 5",
            *([] if node is first else [f"replicaof {first.address} 6379"]),
        ]
        return self._of_redis(node, "server", lines)

    def _sentinel(self, node: Node) -> Program:
        lines = [
            f"bind {node.address}",
            "port 26379",
            "protected-mode no",
            f"sentinel monitor {_MASTER} {self.redises[0].address} 6379 2",
            f"sentinel down-after-milliseconds {_MASTER} {_REDIS_DOWN_AFTER_MS}",
            f"sentinel failover-timeout {_MASTER} 10000",
        ]
        return self._of_redis(node, "sentinel", lines)

    def _of_redis(self, node: Node, kind: str, lines: list[str]) -> Program:
        configuration = self.home / f"{node.name}-{kind}.conf"
        configuration.write_text("\n".join(lines) + "\n")
        return Program(
            name=f"{node.name}-{kind}",
            command=node.command(f"redis-{kind}", str(configuration)),
            log=self.home / "logs" / f"{node.name}-{kind}.log",
            stop_signal=signal.SIGKILL,
        )

    def _patroni(self, node: Node) -> Program:
        folder = self.home / node.name
        folder.mkdir()
        shutil.chown(folder, _USER, _USER)
        self.home.chmod(0o711)
        configuration = folder / "patroni.json"  # YAML reads JSON
        configuration.write_text(json.dumps(self._configuration(node, folder)))
        is_first = node is self.databases[0]
        return Program(
            name=node.name,
            command=node.command(
                # A change of identity would clear what ends it with us.
                *("setpriv", "--pdeathsig", "keep", "--clear-groups"),
                *(f"--reuid={_USER}", f"--regid={_USER}"),
                *("patroni", str(configuration)),
            ),
            log=self.home / "logs" / f"{node.name}.log",
            ready=lambda _pid: self._is_primary(node) if is_first else self._has_standby(),
            stop_signal=signal.SIGKILL,  # its PostgreSQL ends with the machine
        )

    def _configuration(self, node: Node, folder: Path) -> dict[str, object]:
        login = {"username": _USER, "password": "unused"}
        return {
            "scope": "ingest",
            "name": node.name,
            "restapi": {
                "listen": f"{node.address}:8008",
                "connect_address": f"{node.address}:8008",
            },
            "etcd3": {"host": f"{self.witness.address}:{_ETCD_PORT}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_S,
                    "retry_timeout": LOOP_S,
                    "maximum_lag_on_failover": 1 << 30,
                    "synchronous_mode": self._synchronous,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {
                            "max_connections": 100,
                            "track_commit_timestamp": "on",
                            "wal_log_hints": "on",
                            "wal_keep_size": "512MB",
                            "wal_sender_timeout": "5s",
                            "wal_receiver_timeout": "5s",
                        },
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
            },
            "postgresql": {
                "listen": f"{node.address}:5432",
                "connect_address": f"{node.address}:5432",
                "data_dir": str(folder / "data"),
                "bin_dir": str(debian.POSTGRES),
                "pgpass": str(folder / "pgpass"),
                "authentication": {"superuser": login, "replication": login},
                "pg_hba": [
                    "local all all trust",
                    "host all all all trust",
                    "host replication all all trust",
                ],
                "parameters": {"unix_socket_directories": str(folder)},
            },
        }


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no second Ctrl-C end what unmakes everything."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
