"""Redis's address, in one form for redis-py and for kombu."""

from typing import Any

import pytest

from ingest.errors import BadAddress
from ingest.redis_address import RedisAddress, Sentinels, parse_redis

REQUIRED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://", {}),
        ("redis://cache", {"host": "cache"}),
        ("redis://:p%40@cache:7000/3", {"host": "cache", "port": 7000, "password": "p@", "db": 3}),
        ("redis://u:p@[::1]/?db=2", {"host": "::1", "username": "u", "password": "p", "db": 2}),
        ("unix:///run/a%20b.sock", {"path": "/run/a b.sock"}),
        ("unix://:pw@/run/r.sock?db=2", {"path": "/run/r.sock", "password": "pw", "db": 2}),
        ("rediss://cache", {"host": "cache", "tls": REQUIRED}),
        (
            "rediss://cache?ssl_ca_certs=/ca.pem",
            {"host": "cache", "tls": REQUIRED | {"ssl_ca_certs": "/ca.pem"}},
        ),
        (
            "rediss://cache?ssl_cert_reqs=none",
            {"host": "cache", "tls": {"ssl_cert_reqs": "none", "ssl_check_hostname": False}},
        ),
        (" redis://cache\n", {"host": "cache"}),
    ],
)
def test_an_address_is_read_once_for_both_libraries(url: str, parts: dict[str, Any]) -> None:
    expected = RedisAddress(**({"database": parts.pop("db")} if "db" in parts else {}), **parts)
    assert parse_redis(url) == expected
    client = parse_redis(url).connect()
    given = client.connection_pool.connection_kwargs
    assert given.get("password") == expected.password
    assert given["db"] == expected.database
    assert given.get("ssl_cert_reqs") == (expected.tls or {}).get("ssl_cert_reqs")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://:TOPSECRET@cache",
        "redis://:TOP#SECRET@cache",
        "redis://:TOP/SECRET@cache",
        "redis://:TOP?SECRET@cache",
        "redis://:TOPSECRET@cache:0",
        "redis://:TOPSECRET@cache:99999",
        "redis://:TOPSECRET@cache:abc",
        "redis://:TOPSECRET@cache/abc",
        "redis://:TOPSECRET@cache/-1",
        "redis://:TOPSECRET@[::1",
        "redis://:TOPSECRET@a:1,b:2",
        "redis+cluster://:TOPSECRET@cache",
        "sentinel://:TOPSECRET@cache",
        "redis+sentinel://:TOPSECRET@cache",
        "redis+sentinel://:TOPSECRET@cache/",
        "redis+sentinel://:TOPSECRET@cache//0",
        "redis+sentinel://:TOPSECRET@cache/shop/0/1",
        "redis+sentinel://:TOPSECRET@cache,/shop",
        "redis+sentinel://:TOPSECRET@a:1,b:x/shop",
        "redis+sentinel://:TOPSECRET@a:1,b:99999/shop",
        "redis+sentinel://:TOPSECRET@cache/shop/abc",
        "redis://:TOPSECRET@cache?ssl_cert_reqs=none",
        "rediss://:TOPSECRET@cache?ssl_cert_reqs=perhaps",
        "redis://:TOPSECRET@cache?nonsense=1",
        "redis://:TOP\tSECRET@cache",
        "rediss://:TOPSECRET@cache?ssl_check_hostname=perhaps",
        "unix://:TOPSECRET@cache/run.sock",
        "unix://",
    ],
)
def test_what_cannot_be_read_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(BadAddress) as refused:
        parse_redis(url)
    assert "TOP" not in str(refused.value)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "123456", "9" * 5_000])
@pytest.mark.parametrize("form", ["redis://:pw@cache:{}", "rediss://[::1]:{}/1", "redis://h:{}"])
def test_a_port_that_is_none_is_told(form: str, port: str) -> None:
    with pytest.raises(BadAddress, match="must have a port from 1 to 65535"):
        parse_redis(form.format(port))


@pytest.mark.parametrize(
    "url", ["redis://:99999/x@cache", "redis://:99999#x@cache", "redis://u:99/9@cache:1"]
)
def test_a_password_that_looks_like_a_port_is_told_as_a_password(url: str) -> None:
    with pytest.raises(BadAddress, match="percent-encoded"):
        parse_redis(url)


def test_a_host_of_digits_is_a_host() -> None:
    assert parse_redis("redis://99999").host == "99999"


def test_an_address_names_sentinels_their_master_and_both_logins() -> None:
    address = parse_redis(
        "rediss+sentinel://u:p%40@a:7000,[::1],c/shop%2F1/3"
        "?sentinel_user=s&sentinel_password=hunter2&ssl_ca_certs=/ca.pem"
    )
    assert address.sentinels == Sentinels(
        master="shop/1",
        places=(("a", 7000), ("::1", 26379), ("c", 26379)),
        username="s",
        password="hunter2",
    )
    assert (address.username, address.password, address.database) == ("u", "p@", 3)
    assert address.tls == REQUIRED | {"ssl_ca_certs": "/ca.pem"}
    assert str(address) == "master shop/1 by the Sentinels a:7000, ::1:26379, c:26379, database 3"
    assert "hunter2" not in repr(address)
    assert "p@" not in repr(address)
    assert parse_redis("redis+sentinel://a/shop").sentinels is not None


def test_nobody_is_told_the_password() -> None:
    address = parse_redis("redis://user:secret@cache:7000/3")
    assert str(address) == "cache:7000, database 3"
    assert "secret" not in repr(address)


@pytest.mark.parametrize("prefix", ["", "a b", "ä", "a:b", "*", "x" * 64])
def test_a_prefix_is_a_plain_word(prefix: str) -> None:
    with pytest.raises(BadAddress):
        parse_redis("redis://", prefix=prefix)
