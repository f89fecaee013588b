"""Debian's PostgreSQL and Redis as a user runs them: over TCP, with passwords and TLS."""

import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ingest.local import postgres
from ingest.local.process import Program

POSTGRES = Path("/usr/lib/postgresql/15/bin")
ROLE = "app"
PASSWORD = "with / and # and @: percent-encoded"
"""Of the role, and of Redis."""


def find_redis() -> Path | None:
    """Return where Debian's Redis is; None: not here."""
    name = shutil.which("redis-server")
    return Path(name) if name else None


@dataclass(frozen=True)
class Certificates:
    """A certificate of the host `localhost`, its key, and the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a certificate of `localhost` in a folder."""
    authority_key = folder / "authority.key"
    made = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    request = ("openssl", "req", "-x509", *new_key, "-days", "2")
    commands = (
        (*request, "-keyout", authority_key, "-out", made.authority, "-subj", "/CN=authority"),
        (
            *(*request, "-CA", made.authority, "-CAkey", authority_key),
            *("-keyout", made.key, "-out", made.certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        ),
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    made.key.chmod(0o600)
    return made


def postgres_program(
    home: Path, sockets: Path, certificates: Certificates, *, port: int
) -> Program:
    """Return Debian's PostgreSQL 15: by TCP for who has a password and uses TLS.

    The administrator comes by the socket.
    """
    access = home / "pg_hba.conf"
    access.write_text(
        f"local all {postgres.USER} trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
    )
    program = postgres.program(
        home,
        sockets,
        settings=(
            "max_connections=200",
            *("listen_addresses=127.0.0.1", f"port={port}", f"hba_file={access}"),
            *("ssl=on", f"ssl_cert_file={certificates.certificate}"),
            f"ssl_key_file={certificates.key}",
        ),
        binaries=POSTGRES,
    )
    for path in (access, certificates.certificate, certificates.key):
        program.identity.own(path)
    return program


def postgres_url(certificates: Certificates, *, port: int) -> str:
    """Return the address of the role, with `{}` for the database's name."""
    return (
        f"postgresql://{ROLE}:{quote(PASSWORD, safe='')}@localhost:{port}/{{}}"
        f"?sslmode=verify-full&sslrootcert={quote(str(certificates.authority), safe='')}"
    )


def redis_program(home: Path, binary: Path, certificates: Certificates, *, port: int) -> Program:
    """Return Debian's Redis, with a password and nothing but TLS."""
    configuration = home / "redis.conf"
    configuration.write_text(
        f"""
bind 127.0.0.1
port 0
tls-port {port}
tls-cert-file {certificates.certificate}
tls-key-file {certificates.key}
tls-ca-cert-file {certificates.authority}
tls-auth-clients no
requirepass "{PASSWORD}"
save ""
dir {home}
"""
    )
    return Program(
        name="redis",
        command=[str(binary), str(configuration)],
        log=home / "logs" / "redis.log",
        ready=lambda _pid: accepts(port),
    )


def redis_url(certificates: Certificates, *, port: int) -> str:
    """Return its address."""
    return (
        f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}/0"
        f"?ssl_cert_reqs=required&ssl_ca_certs={quote(str(certificates.authority), safe='')}"
    )


def accepts(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port)):
            return True
    except OSError:
        return False
