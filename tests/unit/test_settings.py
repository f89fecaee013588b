from pathlib import Path

import pytest

from ingest import settings
from ingest.errors import SettingsError


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_anything_there_are_defaults_and_no_database() -> None:
    given = settings.load()
    assert (given.host, given.port, given.awalchat_tolerance_s) == ("127.0.0.1", 8000, 300)
    with pytest.raises(SettingsError, match="INGEST_DATABASE_URL"):
        _ = given.database
    with pytest.raises(SettingsError, match="INGEST_REDIS_URL"):
        _ = given.redis


def test_the_environment_wins_over_a_running_up_and_the_command_line_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".ingest").mkdir()
    Path(".ingest/up.json").write_text('{"port": 8111, "redis_url": "redis://up"}')
    assert settings.load().port == 8111
    monkeypatch.setenv("INGEST_PORT", "8222")
    assert settings.load().port == 8222
    assert settings.load(port=8333).port == 8333
    assert settings.load().redis.host == "up"


def test_a_running_up_is_found_where_its_data_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "up.json").write_text('{"port": 8111}')
    monkeypatch.setenv("INGEST_DATA", str(elsewhere))
    assert settings.load().port == 8111


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_broken_note_of_a_running_up_is_passed_over(content: str) -> None:
    Path(".ingest").mkdir()
    Path(".ingest/up.json").write_bytes(content.encode("latin-1"))
    assert settings.load().port == 8000


def test_secrets_are_split_at_commas_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", "new_0123456789abcd, old_0123456789abcd")
    found = [secret.get_secret_value() for secret in settings.load().awalchat_secrets]
    assert found == ["new_0123456789abcd", "old_0123456789abcd"]


@pytest.mark.parametrize(
    "bad", ["short", "long_enough_0123456789,", ",long_enough_0123456789", "a,b"]
)
def test_an_empty_or_short_secret_stops_the_start(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", bad)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "INGEST_AWALCHAT_SECRETS" in str(caught.value)
    assert "long_enough" not in str(caught.value)


def test_a_secret_comes_from_a_file_without_the_newline_of_an_editor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("from_a_file_0123456789\n")
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    (secret,) = settings.load().awalchat_secrets
    assert secret.get_secret_value() == "from_a_file_0123456789"


def test_a_file_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_DATABASE_URL_FILE", "/nowhere/url")
    with pytest.raises(SettingsError, match=r"INGEST_DATABASE_URL_FILE: /nowhere/url"):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("LEASE_S", "-1"),
        ("FLUSH_MAX_ROWS", "0"),
        ("LOG_LEVEL", "loud"),
        ("DATABASE_URL", "mysql://host/db"),
        ("REDIS_URL", "amqp://host"),
        ("READ_MODEL", "perhaps"),
    ],
)
def test_a_bad_value_stops_the_start_and_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"INGEST_{name}", value)
    with pytest.raises(SettingsError, match=f"INGEST_{name}"):
        settings.load()


def test_secrets_are_not_in_the_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", "do_not_show_0123456789")
    monkeypatch.setenv("INGEST_DATABASE_URL", "postgresql://user:do_not_show@host/db")
    assert "do_not_show" not in repr(settings.load())


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.load().port = 1


def test_every_setting_is_described() -> None:
    assert not [
        name for name, field in settings.Settings.model_fields.items() if not field.description
    ]
