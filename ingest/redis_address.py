"""Read the address of Redis, and give it to redis-py and kombu in their forms."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from ingest.errors import BadAddress

DEFAULT_PREFIX = "ingest"
SOCKET_TIMEOUT_S = 1.0
"""kombu sets no time-out: without this, publishing to a frozen Redis would block for ever."""

_SENTINEL = "+sentinel"
_SCHEMES = ("redis", "rediss", "unix", f"redis{_SENTINEL}", f"rediss{_SENTINEL}")
_FORMS = (
    "redis://USER:PASSWORD@HOST:PORT/DB, rediss://…, unix://:PASSWORD@/PATH?db=DB or"
    " redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER/DB"
)
_PREFIX = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_TLS_OPTIONS = (
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
)
_YES = ("true", "1", "yes")
_NO = ("false", "0", "no")
_CERT_REQS = ("required", "optional", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """The Sentinels that know which Redis is the master."""

    master: str
    """The name that they watch it under."""
    places: tuple[tuple[str, int], ...]
    """Their hosts and ports; any that answers will do."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    """Their own login; Redis has another."""

    def __str__(self) -> str:
        hosts = ", ".join(f"{host}:{port}" for host, port in self.places)
        return f"master {self.master} by the Sentinels {hosts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """The address of Redis, and the prefix of our keys."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    """The path of a Unix socket, instead of host and port."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: Mapping[str, Any] | None = None
    """redis-py's options; None: no TLS. Certificates are verified unless the address says no."""
    prefix: str = DEFAULT_PREFIX
    sentinels: Sentinels | None = None
    """Who tells host and port, instead of the address."""

    def __str__(self) -> str:
        """Return the address for people and logs, without user and password."""
        if self.sentinels is not None:
            return f"{self.sentinels}, database {self.database}"
        return f"{self.path or f'{self.host}:{self.port}'}, database {self.database}"

    def key(self, name: str) -> str:
        """Return the name of a key of ours."""
        return f"{self.key_prefix}{name}"

    @property
    def key_prefix(self) -> str:
        """Return the prefix of all our keys."""
        return f"{self.prefix}:"

    def connect(self, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
        """Return a client that gives up after `timeout_s` instead of redis-py's ten retries."""
        options: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "db": self.database,
            **self._limits(timeout_s),
        }
        if self.sentinels is not None:
            sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
                self.sentinels.places, sentinel_kwargs=self.sentinel_options(timeout_s)
            )
            client: redis.Redis = sentinel.master_for(self.sentinels.master, **options)
            return client
        where: dict[str, Any] = (
            {"host": self.host, "port": self.port}
            if self.path is None
            else {"unix_socket_path": self.path}
        )
        return redis.Redis(**where, **options)

    def sentinel_options(self, timeout_s: float) -> dict[str, Any]:
        """Return redis-py's options for connections to the Sentinels."""
        assert self.sentinels is not None
        return {
            "username": self.sentinels.username,
            "password": self.sentinels.password,
            **self._limits(timeout_s),
        }

    def _limits(self, timeout_s: float) -> dict[str, Any]:
        return {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), retries=0),
            "ssl": self.tls is not None,
            **(self.tls or {}),
        }

    @property
    def broker_url(self) -> str:
        """Return the address in kombu's form, without Sentinels. It holds the password."""
        login = ""
        if self.username or self.password:
            login = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        if self.path is not None:
            path = quote(self.path)
            return f"redis+socket://{login}{path}?virtual_host={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{login}{host}:{self.port}/{self.database}"


def parse_redis(url: str, *, prefix: str = DEFAULT_PREFIX) -> RedisAddress:
    """Read an address.

    Raises:
        BadAddress: the address is unreadable or of an unsupported kind. The message holds no part
            of it.
    """
    url = url.strip()
    scheme = url.partition("://")[0].lower()
    if "cluster" in scheme:
        raise _bad("must be a single Redis, or one behind Sentinels: Cluster is not supported")
    if not url.isprintable():
        raise _bad("holds a line break, a tab or another control character")
    if "://" not in url or scheme not in _SCHEMES:
        raise _bad(f"must begin with {', '.join(f'{name}://' for name in _SCHEMES)}")
    if not _PREFIX.match(prefix):
        raise BadAddress(
            "must be a prefix of letters, digits, dots, dashes and underscores, 63 at most",
            reason="bad_prefix",
        )
    try:
        parts = urlsplit(url)
        return _read(parts, prefix)
    except ValueError:  # its text quotes the address
        raise _bad(_HINT) from None


_HINT = (
    f"is not of the form {_FORMS}: is a character of the password not percent-encoded"
    " (%2F for /, %23 for #, %3F for ?)?"
)


def _read(parts: SplitResult, prefix: str) -> RedisAddress:
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise _bad(_HINT)
    options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    is_socket = parts.scheme == "unix"
    sentinels = _sentinels(parts, options) if parts.scheme.endswith(_SENTINEL) else None
    in_path = parts.path.lstrip("/") if sentinels is None else parts.path.split("/", 3)[2:]
    database = options.pop("db", "") or ("" if is_socket else "".join(in_path)) or "0"
    tls = _tls(parts.scheme.removesuffix(_SENTINEL), options)
    if options:
        raise _bad("has an option that is not known: db, sentinel_… and ssl_… are")
    if not database.isascii() or not database.isdigit() or len(database) > 5:
        raise _bad("must name its database by a number")
    where: dict[str, Any] = {}
    if is_socket:
        if parts.hostname or len(parts.path) < 2:
            raise _bad(f"is not of the form {_FORMS}")
        where["path"] = unquote(parts.path)
    elif sentinels is None:
        if "," in parts.netloc.rpartition("@")[2]:
            raise _bad("must name one host; several Sentinels begin with redis+sentinel://")
        where["host"] = parts.hostname or "localhost"
        where["port"] = _port(parts)
    return RedisAddress(
        **where,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=int(database),
        tls=tls,
        prefix=prefix,
        sentinels=sentinels,
    )


_SENTINEL_PORT = 26379


def _sentinels(parts: SplitResult, options: dict[str, str]) -> Sentinels:
    """Read hosts and the master's name; remove the login of the Sentinels from `options`."""
    hosts = [urlsplit(f"//{place}") for place in parts.netloc.rpartition("@")[2].split(",")]
    master = unquote(parts.path.split("/")[1]) if parts.path.count("/") in (1, 2) else ""
    if not master or not all(host.hostname for host in hosts):
        raise _bad(f"is not of the form {_FORMS}")
    return Sentinels(
        master=master,
        places=tuple((host.hostname or "", _port(host, _SENTINEL_PORT)) for host in hosts),
        username=options.pop("sentinel_user", None),
        password=options.pop("sentinel_password", None),
    )


def _port(parts: SplitResult, default: int = 6379) -> int:
    """Return the port. Raise ValueError for one with other characters: it may end a password."""
    _, colon, written = parts.netloc.rpartition("@")[2].rpartition("]")[2].rpartition(":")
    is_number = colon and written.isascii() and written.isdigit()
    if is_number and not 0 < int(written[:6]) < 65536:
        raise _bad("must have a port from 1 to 65535")
    return default if parts.port is None else parts.port


def _tls(scheme: str, options: dict[str, str]) -> Mapping[str, Any] | None:
    """Remove the options of TLS from `options` and return them."""
    named: dict[str, Any] = {name: options.pop(name) for name in _TLS_OPTIONS if name in options}
    if scheme != "rediss":
        if named:
            raise _bad("has options of TLS and no TLS: begin it with rediss://")
        return None
    required = str(named.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
    if required not in _CERT_REQS:
        raise _bad(f"must have ssl_cert_reqs as one of {', '.join(_CERT_REQS)}")
    named["ssl_cert_reqs"] = required
    checks = str(named.get("ssl_check_hostname", "true")).lower()
    if checks not in _YES + _NO:
        raise _bad("must have ssl_check_hostname as true or false")
    named["ssl_check_hostname"] = required != "none" and checks in _YES
    return MappingProxyType(named)


def _bad(message: str) -> BadAddress:
    return BadAddress(message, reason="bad_address")
