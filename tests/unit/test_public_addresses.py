"""Which addresses a destination may lead to, and that nothing gets round it."""

import asyncio
import socket

import pytest

from ingest import outgoing
from ingest.outgoing import NoAnswer, NotPublic
from ingest.public_addresses import is_public
from tests.support.http_taker import running

NOT_PUBLIC = {
    "this machine": "127.0.0.1",
    "this machine by another number": "127.9.9.9",
    "this machine in IPv6": "::1",
    "no address": "0.0.0.0",  # noqa: S104
    "no address in IPv6": "::",
    "a private network, 10": "10.0.0.1",
    "a private network, 172": "172.16.0.1",
    "the last of it": "172.31.255.255",
    "a private network, 192": "192.168.1.1",
    "a provider's own network": "100.64.0.1",
    "Alibaba's metadata": "100.100.100.200",
    "link-local, and most clouds' metadata": "169.254.169.254",
    "a container's credentials": "169.254.170.2",
    "Azure's metadata": "168.63.129.16",
    "Oracle's metadata": "192.0.0.192",
    "link-local in IPv6": "fe80::1",
    "link-local with a zone": "fe80::1%eth0",
    "unique local": "fc00::1",
    "AWS's metadata in IPv6": "fd00:ec2::254",
    "site-local, which is no more": "fec0::1",
    "private, mapped": "::ffff:10.0.0.1",
    "this machine, mapped": "::ffff:127.0.0.1",
    "public, mapped": "::ffff:8.8.8.8",
    "this machine, in the old way": "::7f00:1",
    "private, by NAT64": "64:ff9b::10.0.0.1",
    "NAT64 of a local prefix": "64:ff9b:1::808:808",
    "private, by 6to4": "2002:a00:1::1",
    "by Teredo": "2001:0:0a00:1::1",
    "to many": "224.0.0.1",
    "to many in IPv6": "ff02::1",
    "to all": "255.255.255.255",
    "reserved": "240.0.0.1",
    "of documents": "192.0.2.1",
    "of documents in IPv6": "2001:db8::1",
    "of measurements": "198.18.0.1",
    "no address at all": "localhost",
    "a number": "2130706433",
    "octal": "0177.0.0.1",
    "empty": "",
}
PUBLIC = ("8.8.8.8", "1.1.1.1", "172.32.0.1", "192.169.0.1", "100.128.0.1", "169.253.0.1",
          "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1")  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC.values(), ids=NOT_PUBLIC)
def test_an_address_that_is_not_the_internets_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


def sent(url: str, *, only_public: bool) -> int:
    request = outgoing.request("POST", url, b"{}", {}, timeout_s=20, only_public=only_public)
    return asyncio.run(request).status


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "0x7f000001"],
)
def test_nothing_is_sent_to_this_machine_however_it_is_spelled(host: str) -> None:
    with running() as taker:
        with pytest.raises(NotPublic):
            sent(f"http://{host}:{taker.server_port}/", only_public=True)
        assert taker.taken == []


RESOLVE = socket.getaddrinfo


def lead_to(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every name resolve to these."""
    found = [at for told in addresses for at in RESOLVE(told, None, type=socket.SOCK_STREAM)]

    def resolved(_host: object, port: int, *_: object, **_named: object) -> list[object]:
        return [(*kind, (at[0], port, *at[2:])) for *kind, at in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


RESOLVED = {
    "one": ["127.0.0.1"],
    "this machine, in both families": ["::1", "127.0.0.1"],
    "two private ones": ["10.1.2.3", "192.168.7.9"],
    "several of each family": ["::1", "fd00::1", "10.1.2.3", "127.0.0.1", "169.254.169.254"],
}


@pytest.mark.parametrize("addresses", RESOLVED.values(), ids=RESOLVED)
def test_nothing_is_sent_to_a_name_whose_addresses_are_all_private(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    with running() as taker:
        lead_to(addresses, monkeypatch)
        with pytest.raises(NotPublic):
            sent(f"http://crm.example.com:{taker.server_port}/", only_public=True)
        assert taker.taken == []


def test_a_private_address_beside_one_where_nothing_listens_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outgoing, "is_public", lambda address: address == "127.0.0.2")
    with running() as taker:
        lead_to(["::1", "127.0.0.2"], monkeypatch)
        with pytest.raises(NotPublic):
            sent(f"http://crm.example.com:{taker.server_port}/", only_public=True)
        lead_to(["127.0.0.2"], monkeypatch)
        with pytest.raises(NoAnswer, match="Connection refused"):
            sent(f"http://crm.example.com:{taker.server_port}/", only_public=True)
        assert taker.taken == []


@pytest.mark.parametrize("host", ["0177.0.0.1", "2130706433", "127.1"])
def test_numbers_that_look_like_an_address_are_no_host(host: str) -> None:
    with running() as taker:
        with pytest.raises(NoAnswer):
            sent(f"http://{host}:{taker.server_port}/", only_public=True)
        assert taker.taken == []


def test_a_name_is_resolved_once_and_what_is_connected_to_is_what_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that a second look would lead elsewhere: rebinding."""
    resolve = socket.getaddrinfo
    asked: list[object] = []

    def rebinding(host: object, port: object, *more: object, **named: object) -> object:
        asked.append(host)
        told = "127.0.0.1" if len(asked) == 1 else "8.8.8.8"
        return resolve(told, port, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with running() as taker:
        url = f"http://crm.example.com:{taker.server_port}/"
        with pytest.raises(NotPublic):
            sent(url, only_public=True)
        assert asked == ["crm.example.com"]
        assert taker.taken == []
        asked.clear()
        assert sent(url, only_public=False) == 200
        assert asked == ["crm.example.com"]
        assert taker.taken[0][0]["host"] == f"crm.example.com:{taker.server_port}"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as proxy, running() as taker:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        assert sent(taker.url, only_public=False) == 200
        assert (len(taker.taken), proxy.taken) == (1, [])
