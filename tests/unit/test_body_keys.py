"""The form of an encrypted body, and what cannot be read."""

import os
from base64 import b64encode
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest import settings
from ingest.encryption.keys import BodyKeys, key_id, make, parse
from ingest.errors import BodyKeyMissing, BodyTampered, SettingsError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
DELIVERY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
BODY = b'{"event":"order.created"}'


def test_the_form_of_an_encrypted_body_does_not_change() -> None:
    nonce = bytes(range(12))
    stored = BodyKeys([OLD], random=lambda _: nonce).seal(BODY, DELIVERY, key_id(OLD))
    bound_to = b"ingest body\0" + DELIVERY.bytes
    assert stored == nonce + AESGCM(OLD).encrypt(nonce, BODY, bound_to)
    assert len(stored) == len(BODY) + 28
    assert key_id(OLD) == "5313af2d"


@pytest.mark.parametrize("body", [b"", BODY, os.urandom(70_000)], ids=["empty", "small", "large"])
def test_what_is_encrypted_comes_back(body: bytes) -> None:
    keys = BodyKeys([NEW, OLD])
    for key in keys.ids:
        stored = keys.seal(body, DELIVERY, key)
        assert keys.open(stored, DELIVERY, key) == body
        assert stored != keys.seal(body, DELIVERY, key)


def test_a_body_in_clear_is_as_it_is() -> None:
    assert BodyKeys().open(BODY, DELIVERY, None) == BODY
    assert BodyKeys([OLD]).open(BODY, DELIVERY, None) == BODY


def test_the_newest_key_is_the_first() -> None:
    assert BodyKeys([NEW, OLD]).newest == key_id(NEW)
    assert BodyKeys().newest is None


def test_other_bytes_are_another_key_and_the_right_one_is_missing() -> None:
    stored = BodyKeys([OLD]).seal(BODY, DELIVERY, key_id(OLD))
    with pytest.raises(BodyKeyMissing, match=f"the key {key_id(OLD)}, which") as missing:
        BodyKeys([NEW]).open(stored, DELIVERY, key_id(OLD))
    assert (missing.value.reason, missing.value.key) == ("body_key_missing", key_id(OLD))
    with pytest.raises(BodyKeyMissing):
        BodyKeys([NEW]).seal(BODY, DELIVERY, key_id(OLD))


@pytest.mark.parametrize("place", [0, 11, 12, 20, -16, -1])
def test_a_changed_byte_is_noticed(place: int) -> None:
    keys = BodyKeys([OLD])
    changed = bytearray(keys.seal(BODY, DELIVERY, key_id(OLD)))
    changed[place] ^= 1
    with pytest.raises(BodyTampered, match=str(DELIVERY)) as tampered:
        keys.open(bytes(changed), DELIVERY, key_id(OLD))
    assert tampered.value.reason == "body_tampered"


@pytest.mark.parametrize("length", [0, 1, 7, 12, 27])
def test_a_body_that_was_cut_is_noticed(length: int) -> None:
    keys = BodyKeys([OLD])
    with pytest.raises(BodyTampered):
        keys.open(keys.seal(BODY, DELIVERY, key_id(OLD))[:length], DELIVERY, key_id(OLD))


def test_a_body_that_was_moved_to_another_row_is_noticed() -> None:
    keys = BodyKeys([OLD])
    with pytest.raises(BodyTampered):
        keys.open(keys.seal(BODY, DELIVERY, key_id(OLD)), uuid4(), key_id(OLD))


def test_keys_are_read_newest_first_and_each_once() -> None:
    new, old = (b64encode(key).decode() for key in (NEW, OLD))
    assert parse(f"{new}\n{old}\n") == parse(f"{new}, {old},{new}") == (NEW, OLD)
    assert len(parse(make(os.urandom))[0]) == 32


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("c2hvcnQ=", "is shorter than 43 characters"),
        ("!" * 44, "key 1 is not 32 bytes in base64"),
        (b64encode(b"x" * 48).decode(), "key 1 is not 32 bytes in base64"),
        (f"{b64encode(OLD).decode()}\n{'?' * 44}", "key 2 is not 32 bytes in base64"),
        (f'"{b64encode(OLD).decode()}"', "is in quotes"),
    ],
)
def test_what_is_no_key_stops_the_start_and_is_not_told(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_BODY_KEYS", text)
    with pytest.raises(SettingsError, match=problem) as refused:
        settings.load(standalone=True)
    assert "INGEST_BODY_KEYS" in str(refused.value)
    assert not text.strip() or text.strip() not in str(refused.value)


def test_a_key_is_not_in_the_form_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = b64encode(OLD).decode()
    monkeypatch.setenv("INGEST_BODY_KEYS", key)
    monkeypatch.setenv("INGEST_DATABASE_URL", "postgresql:///shop")
    loaded = settings.load(standalone=True)
    assert loaded.database.body_keys.ids == (key_id(OLD),)
    assert key not in repr(loaded) + repr(loaded.database)
