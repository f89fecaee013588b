"""When the certificates of PostgreSQL and Redis expire, where they are verified."""

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from ingest.doctor.findings import Finding, error, note, warning
from ingest.doctor.setup import Setup
from ingest.errors import SettingsError
from ingest.store.address import Database

EXPIRED = error(
    "certificate_expired", "Install a new certificate: no connection is made with this one."
)
EXPIRES = warning("certificate_expires", "Install a new certificate before then.")
CERTIFICATE = note("certificate")

_SOON = timedelta(days=30)
_TIMEOUT_S = 2.0
_VERIFYING = ("verify-ca", "verify-full")
# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def of_database(setup: Setup) -> Iterator[Finding]:
    """Read the certificates of PostgreSQL and ours for it."""
    try:
        database = setup.settings.database
    except SettingsError:
        return
    if database.parameters.get("sslmode") not in _VERIFYING:
        return
    for host, port in _places(database):
        yield from _of_server(setup, f"PostgreSQL at {host}:{port}", host, port, greets=True)
    yield from _of_file(setup, database.parameters.get("sslcert"))


def of_redis(setup: Setup) -> Iterator[Finding]:
    """Read the certificates of Redis and ours for it."""
    try:
        address = setup.settings.redis
    except SettingsError:
        return
    if address.tls is None or address.tls["ssl_cert_reqs"] == "none":
        return
    where = f"Redis at {address.host}:{address.port}"
    yield from _of_server(setup, where, address.host, address.port, greets=False)
    yield from _of_file(setup, address.tls.get("ssl_certfile"))


def _places(database: Database) -> Iterator[tuple[str, int]]:
    hosts = database.parameters.get("host", "").split(",")
    ports = database.parameters.get("port", "5432").split(",")
    for host, port in zip(hosts, ports * (len(hosts) if len(ports) == 1 else 1), strict=False):
        if host and not host.startswith("/"):
            yield host, int(port)


def _of_server(
    setup: Setup, where: str, host: str, port: int, *, greets: bool
) -> Iterator[Finding]:
    """Read a server's certificate; `greets`: PostgreSQL is asked for TLS first."""
    try:
        with closing(socket.create_connection((host, port), timeout=_TIMEOUT_S)) as plain:
            if greets:
                plain.sendall(_SSL_REQUEST)
                if plain.recv(1) != b"S":
                    return
            certificate = x509.load_der_x509_certificate(_presented(plain, host))
    except (OSError, ValueError):  # told by the check that connects
        return
    yield _judge(setup, f"The certificate of {where}", certificate)


def _presented(plain: socket.socket, host: str) -> bytes:
    """Return the certificate that a server presents. An expired one is read too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain, server_hostname=host) as encrypted:
        return encrypted.getpeercert(binary_form=True) or b""


def _of_file(setup: Setup, path: str | None) -> Iterator[Finding]:
    if path is None:
        return
    try:
        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except (OSError, ValueError):  # told by the check that connects
        return
    yield _judge(setup, f"The certificate in {path}", certificate)


def _judge(setup: Setup, which: str, certificate: x509.Certificate) -> Finding:
    end = certificate.not_valid_after_utc
    left = end - setup.clock()
    if left <= timedelta():
        return EXPIRED.found(f"{which} expired on {end:%Y-%m-%d}.")
    if left < _SOON:
        return EXPIRES.found(f"{which} expires on {end:%Y-%m-%d}, in {left.days} days.")
    return CERTIFICATE.found(f"{which} is valid until {end:%Y-%m-%d}.")
