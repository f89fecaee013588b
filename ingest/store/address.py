"""The database's address, parsed once by libpq's rules into one form for every library."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import psycopg
from psycopg import conninfo

from ingest.encryption.keys import NO_KEYS, BodyKeys
from ingest.errors import BadAddress

SCHEMA = "ingest"
"""The schema that statements name, and the default of `INGEST_DATABASE_SCHEMA`."""
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

_SCHEME = re.compile(r"\A([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The database, and the schema, of the pipeline's tables."""

    parameters: Mapping[str, str] = field(repr=False)
    """libpq's connection parameters; the password is among them."""
    schema: str = SCHEMA
    body_keys: BodyKeys = field(default=NO_KEYS, repr=False, compare=False)
    """What the bodies in it are encrypted with."""

    def __str__(self) -> str:
        """Name the database for people and logs: `shop at db:5432`, without user and password."""
        name = self.parameters.get("dbname") or self.parameters.get("user") or "the default"
        hosts = (self.parameters.get("host") or "a local socket").split(",")
        ports = self.parameters.get("port", "").split(",")
        if len(ports) < len(hosts):
            ports *= len(hosts)
        places = (
            f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)
        )
        return f"{name} at {' or '.join(places)}"


def parse(url: str, *, schema: str = SCHEMA) -> Database:
    """Parse an address.

    Args:
        url: `postgresql://…`, in any form that libpq takes: several hosts, a socket, options.
        schema: the schema of the pipeline's tables, which `check_schema` accepts.

    Raises:
        BadAddress: it cannot be parsed. The message quotes no part of the address.
    """
    url = url.strip()
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() not in SCHEMES:
        raise _bad(f"must begin with {' or '.join(f'{name}://' for name in SCHEMES)}")
    try:
        libpq = conninfo.conninfo_to_dict("postgresql" + url[scheme.end(1) :])
    except psycopg.Error:  # its text quotes the address
        raise _bad(f"is not of the form {FORM}?OPTIONS") from None
    if _is_cut(url):
        raise _bad(_SPECIAL)
    parameters = {name: str(value) for name, value in libpq.items() if value not in (None, "")}
    _check_hosts(parameters.get("host", ""))
    if "@" in parameters.get("dbname", ""):
        raise _bad(_SPECIAL)
    _check_ports(parameters.get("port", ""))
    return Database(parameters=MappingProxyType(parameters), schema=schema)


def check_schema(name: str) -> None:
    """Refuse a schema that cannot be the pipeline's own.

    Raises:
        BadAddress: the name is reserved, or would need quotes.
    """
    if name in _RESERVED or name.startswith("pg_") or not _SCHEMA_NAME.match(name):
        raise BadAddress(
            "must be a schema for the pipeline alone (not public): small letters, digits and"
            " underscores, 63 at most",
            reason="bad_schema",
        )


_RESERVED = ("public", "information_schema")
_SCHEMA_NAME = re.compile(r"\A[a-z_][a-z0-9_]{0,62}\Z")
_SPECIAL = (
    f"is not of the form {FORM}: is a character of the password or of an option not"
    " percent-encoded (%2F for /, %40 for @, %3A for :)?"
)


def _is_cut(url: str) -> bool:
    """Return whether libpq takes a part of the password for hosts, ports, database or options.

    For libpq, user and password end at the first @, and there are none if a / is before it. So a
    further @, or one behind a /, is where they were meant to end.
    """
    login, at, rest = url.partition("://")[2].partition("@")
    return "@" in rest or (bool(at) and "/" in login)


def _check_hosts(hosts: str) -> None:
    for host in filter(None, hosts.split(",")):
        if "@" in host[1:] and not host.startswith("/"):  # one before it marks an abstract socket
            raise _bad(_SPECIAL)
        try:
            host.startswith("/") or host.encode("idna")
        except UnicodeError:  # a lookup would raise it too
            raise _bad("names a host that cannot be one: a part is empty or too long") from None


def _check_ports(ports: str) -> None:
    for port in filter(None, ports.split(",")):
        if not port.isascii() or not port.isdigit():
            raise _bad(_SPECIAL)
        if not 0 < int(port[:9]) < 65536:
            raise _bad("must have a port from 1 to 65535")


def _bad(message: str) -> BadAddress:
    return BadAddress(message, reason="bad_address")
