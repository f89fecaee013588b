"""Addresses, as people write them."""

import pytest

from ingest.errors import BadAddress
from ingest.store.address import check_schema, parse


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("postgresql:///shop", {"dbname": "shop"}),
        (
            "postgres://u:p%40@db:5433/shop",
            {"user": "u", "password": "p@", "host": "db", "port": "5433", "dbname": "shop"},
        ),
        (
            "postgresql+psycopg://u@/shop?host=%2Frun",
            {"user": "u", "dbname": "shop", "host": "/run"},
        ),
        (
            "postgresql://u@a:1,b:2/shop",
            {"user": "u", "host": "a,b", "port": "1,2", "dbname": "shop"},
        ),
        ("postgresql://u:a#b@h/x", {"user": "u", "password": "a#b", "host": "h", "dbname": "x"}),
        (
            "postgresql://u@h/x?options=-csearch_path%3Dhooks&sslmode=verify-full",
            {
                "user": "u",
                "host": "h",
                "dbname": "x",
                "options": "-csearch_path=hooks",
                "sslmode": "verify-full",
            },
        ),
        (" postgresql://[::1]:5432/x\n", {"host": "::1", "port": "5432", "dbname": "x"}),
        (
            "postgresql://u%40s:p%40@h/x",
            {"user": "u@s", "password": "p@", "host": "h", "dbname": "x"},
        ),
        ("postgresql://%2Frun%2Fa%40b/x", {"host": "/run/a@b", "dbname": "x"}),
        ("postgresql:///x?host=%40abstract", {"host": "@abstract", "dbname": "x"}),
        ("postgresql://h/x?user=u%40s", {"host": "h", "dbname": "x", "user": "u@s"}),
    ],
)
def test_an_address_is_read_by_the_rules_of_libpq(url: str, parameters: dict[str, str]) -> None:
    assert parse(url).parameters == parameters


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:TOPSECRET@h/x",
        "postgresql+asyncpg://u:TOPSECRET@h/x",
        "postgresql://u:TOP/SECRET@h/x",
        "postgresql://u:1234/SECRET@h/x",
        "postgresql://u:TOPSECRET@h:port/x",
        "postgresql://u:TOPSECRET@h:99999/x",
        "postgresql://u:TOPSECRET@h:0/x",
        "postgresql://u:99999/TOPSECRET@h/x",
        "postgresql://u:TOP%zzSECRET@h/x",
        "postgresql://u:TOPSECRET@[::1/x",
        "postgresql://u:TOPSECRET@h/x?nonsense=1",
        "u:TOPSECRET@h/x",
        "postgresql://u:TOPSECRET@a..b/x",
        f"postgresql://u:TOPSECRET@{64 * 'h'}.example/x",
        "postgresql://u:TOP@SECRET@h:5432/x",
        "postgresql://u:TOP@SECRET@/x",
        "postgresql://u:@TOPSECRET@h/x",
        "postgresql://u:TOP@@SECRET@h/x",
        "postgresql://u:TOP@SECRET@a:1,b:2/x",
        "postgresql://u:TOP@SEC,RET@h/x",
        "postgresql://u:TOP@SEC:RET@h/x",
        "postgresql://u:TOP@1234,SECRET@h/x",
        "postgresql://u:TOP@%53ECRET@h/x",
        "postgresql://u:TOP@SECRET%40h/x",
        "postgresql://u:TOP@%2FSECRET@h/x",
        "postgresql://u:TOP@SECRET@%2Frun/x",
        "postgresql://u:TOP@SECRET@[::1]/x",
        "postgresql://u:TOP@[SECRET]@h/x",
        "postgresql://u:TOP@SEC#RET@h/x",
        "postgresql://u:TOP@SEC/RET@h/x",
        "postgresql://u:TOP@SEC?RET@h/x",
        "postgresql://u:TOP@SEC?user=SECRET@h/x",
        "postgresql://u:TOP@SECRET?application_name=x@h",
        "postgresql://u:1234/TOPSECRET?sslmode=x@h/x",
        "postgresql://u:1234/TOPSECRET#@h/x",
        "postgresql://u:TOP SECRET@SECRET@h/x",
        "postgresql://TOP@SECRET:p@h/x",
        "postgresql://TOP/SECRET:p@h/x",
        "",
    ],
)
def test_what_cannot_be_read_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(BadAddress) as refused:
        parse(url)
    message = str(refused.value)
    assert "SECRET" not in message
    assert "TOP" not in message
    assert "1234" not in message


@pytest.mark.parametrize("special", [*"@/?#:[]%,;&=+ '\"\\\t", "%zz", "/?", "@[", "]@", "@1:"])
@pytest.mark.parametrize("place", ["h", "h:5432", "a:1,b:2", "[::1]", "%2Frun", ""])
def test_no_part_of_a_password_is_told_whatever_is_not_encoded_in_it(
    special: str, place: str
) -> None:
    for password in (f"TOP{special}SECRET", f"1234{special}SECRET", f"{special}SECRET"):
        try:
            told = str(parse(f"postgresql://u:{password}@{place}/x"))
        except BadAddress as refused:
            told = str(refused)
        assert not any(part in told for part in ("TOP", "SECRET", "1234"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@db:5433/shop", "shop at db:5433"),
        ("postgresql://u:secret@a:1,b:2/shop", "shop at a:1 or b:2"),
        ("postgresql://u@/shop?host=%2Frun", "shop at /run"),
        ("postgresql:///", "the default at a local socket"),
    ],
)
def test_people_are_told_where_a_database_is_and_not_who_may_use_it(url: str, said: str) -> None:
    assert str(parse(url)) == said
    assert "secret" not in repr(parse(url))


@pytest.mark.parametrize("name", ["ingest", "hooks_2", "_x"])
def test_a_schema_has_a_plain_name(name: str) -> None:
    check_schema(name)


@pytest.mark.parametrize("name", ["", "public", "pg_x", "A", "a b", 'a"b', "1a", "a" * 64, "ü"])
def test_no_other_schema_will_do(name: str) -> None:
    with pytest.raises(BadAddress):
        check_schema(name)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "5432,99999"])
def test_a_port_that_is_none_is_told(port: str) -> None:
    hosts = ",".join(f"h:{each}" for each in port.split(","))
    with pytest.raises(BadAddress, match="must have a port from 1 to 65535"):
        parse(f"postgresql://u:pw@{hosts}/x")


def test_a_password_that_looks_like_a_port_is_told_as_a_password() -> None:
    with pytest.raises(BadAddress, match="percent-encoded"):
        parse("postgresql://u:99999/x@h/d")
