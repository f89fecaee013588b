from pathlib import Path
from typing import Any

import pytest

from ingest import settings
from ingest.errors import SettingsError


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_anything_there_are_defaults_and_no_database() -> None:
    given = settings.load()
    assert (given.host, given.port, given.sources["awalchat"].tolerance_s) == (
        "127.0.0.1",
        8000,
        300,
    )
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


def test_an_empty_name_of_a_file_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_ALERTS", "")
    monkeypatch.setenv("INGEST_HEARTBEAT_FILE", "")
    assert (settings.load().alerts, settings.load().heartbeat_file) == (None, None)


def test_secrets_are_split_at_commas_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", "new_0123456789abcd, old_0123456789abcd")
    found = [secret.get_secret_value() for secret in settings.load().sources["awalchat"].secrets]
    assert found == ["new_0123456789abcd", "old_0123456789abcd"]


@pytest.mark.parametrize(
    "bad", ["short", "long_enough_0123456789,,", ",long_enough_0123456789", "a,b"]
)
def test_an_empty_or_short_secret_stops_the_start(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", bad)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "INGEST_AWALCHAT_SECRETS" in str(caught.value)
    assert "long_enough" not in str(caught.value)


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_secret_that_is_set_to_nothing_stops_the_start(
    blank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another source may be configured: then only this one would be answered 404."""
    monkeypatch.setenv("INGEST_TWILIO_SECRETS", "long_enough_0123456789")
    monkeypatch.setenv("INGEST_TWILIO_PUBLIC_URL", "https://example.com/webhooks/twilio")
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", blank)
    with pytest.raises(SettingsError, match="INGEST_AWALCHAT_SECRETS: it is empty"):
        settings.load()


def test_a_secret_comes_from_a_file_without_the_newline_of_an_editor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("from_a_file_0123456789\n")
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    (secret,) = settings.load().sources["awalchat"].secrets
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
    assert not [name for name, field in settings.variables().items() if not field.description]


NEW, OLD = "new_0123456789abcd", "old_0123456789abcd"


@pytest.mark.parametrize(
    "written",
    [
        f"{NEW}\n{OLD}",
        f"{NEW}\r\n{OLD}\r\n",
        f"{NEW},\n{OLD},\n",
        f"\n  {NEW}  \n\n\t{OLD}\t\n",
        f"{NEW}, {OLD},",
        f"{NEW}\n{OLD}\n{NEW}\n",  # one that is there twice counts once
    ],
)
def test_secrets_stand_one_a_line_or_between_commas(
    written: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(written.encode())
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    found = [secret.get_secret_value() for secret in settings.load().sources["awalchat"].secrets]
    assert found == [NEW, OLD]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (f'"{NEW}"', "quotes"),
        (f"'{NEW}'", "quotes"),
        (f"{OLD}\n\u201c{NEW}\u201d", "line 2: secret 2 is in quotes"),
        (f"{OLD} {NEW}", "white space"),
        (f"{NEW}\x00", "control character"),
        (f"{NEW}\x1b[0m", "control character"),
        (f"{OLD}\n\ufeff{NEW}", "byte order mark"),
        (f"{OLD}\n\u200b{NEW}", "control character"),
        (f"{OLD}\n\n{NEW}\x0b{OLD}", "line 3: secret 2 holds white space"),
        (f"{NEW}\x0c{OLD}", "white space"),
        (f"{NEW}\x0c", "white space"),
        (f"{NEW}\x1c{OLD}", "white space"),
        (f"{NEW}\u0085{OLD}", "white space"),
        (f"{NEW}\u2028{OLD}", "white space"),
        (f"{NEW}\u2029", "white space"),
        (f"\u00a0{NEW}", "white space"),
        (f"{NEW}\r{OLD}", "white space"),
        (f"{NEW}\u00e9", "not ASCII"),
        (f"{OLD}\n\uff4e\uff45\uff57_0123456789abcd", "line 2: secret 2 .* not ASCII"),
        (f"# the old one\n{OLD}", "line 1: secret 1 begins with #"),
        (f"{NEW}\n#{OLD}", "line 2: secret 2 begins with #"),
        (f'["{NEW}", "{OLD}"]', "is JSON"),
        (f'\n [\n"{NEW}"\n]\n', "is JSON"),
        (f'{{"secret": "{NEW}"}}', "is JSON"),
        (f"INGEST_AWALCHAT_SECRETS={NEW}", "name of a variable"),
        (f"export INGEST_AWALCHAT_SECRETS={NEW}", "name of a variable"),
    ],
)
def test_what_is_hardly_a_secret_is_refused_and_not_shown(
    written: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(written.encode())
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    with pytest.raises(SettingsError, match=said) as refused:
        settings.load()
    assert str(refused.value).startswith(f"INGEST_AWALCHAT_SECRETS_FILE: {file}: ")
    assert "0123456789" not in str(refused.value)
    monkeypatch.delenv("INGEST_AWALCHAT_SECRETS_FILE")
    if "\x00" in written:
        return
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS", written)
    with pytest.raises(SettingsError, match=said) as refused:
        settings.load()
    assert str(refused.value).startswith("INGEST_AWALCHAT_SECRETS: ")
    assert "0123456789" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\n", " \t\r\n\n"])
def test_an_empty_file_of_secrets_is_named(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(content.encode())
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert str(refused.value) == f"INGEST_AWALCHAT_SECRETS_FILE: {file}: it is empty."


def test_a_bad_value_is_told_where_it_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "port"
    file.write_text("http")
    monkeypatch.setenv("INGEST_PORT_FILE", str(file))
    assert refusal() == f"INGEST_PORT_FILE: {file}: must be a whole number."
    monkeypatch.setenv("INGEST_PORT", "70000")  # wins over the file
    assert refusal() == "INGEST_PORT: must be at most 65535."


@pytest.mark.parametrize("name", ["RECEIVER_URL", "PUBLIC_URL"])
@pytest.mark.parametrize(
    "bad",
    [
        "nan",
        "",
        "receiver:8000",
        "http://",
        "tcp://h:1",
        "http://h:x",
        "http://h:99999",
        "http://a b",
        "http://[::1",
        "http://h?x=1",
    ],
)
def test_an_address_of_the_receiver_that_is_none_stops_the_start(
    name: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"INGEST_{name}", bad)
    said = refusal()
    assert said is not None
    assert said.startswith(f"INGEST_{name}: must be an address of the form http://")


@pytest.mark.parametrize(
    "good", ["http://receiver:8000", "https://hooks.example.com/a/", "http://[::1]:8000"]
)
def test_an_address_of_the_receiver_is_taken_as_it_is(
    good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_RECEIVER_URL", good)
    assert settings.load().receiver_url == good


def test_a_byte_order_mark_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(b"\xef\xbb\xbf" + NEW.encode())
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    with pytest.raises(SettingsError, match="byte order mark"):
        settings.load()


def test_what_kubernetes_injects_for_a_service_is_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("INGEST", "INGEST_CONSOLE"):
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.7:8000")
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.7")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "8000")
        monkeypatch.setenv(f"{service}_PORT_8000_TCP", "tcp://10.0.0.7:8000")
        monkeypatch.setenv(f"{service}_PORT_8000_TCP_ADDR", "10.0.0.7")
    found = settings.load()
    assert (found.port, found.console_port) == (8000, 8001)
    monkeypatch.setenv("INGEST_PORT", "tcp://somewhere")
    with pytest.raises(SettingsError, match="INGEST_PORT"):
        settings.load()


@pytest.mark.parametrize(
    "written", ["a*b", "*example", "console.example:8001", "a b", "a,,b", "http://a"]
)
def test_what_no_host_header_names_is_told(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_CONSOLE_ALLOWED_HOSTS", written)
    with pytest.raises(SettingsError, match="INGEST_CONSOLE_ALLOWED_HOSTS: must") as told:
        settings.load()
    assert written not in str(told.value)


@pytest.mark.parametrize(
    "written", ["10.0.0.5", "10.0.0.5, 192.168.0.0/16", "2001:db8::1\nfd00::/8"]
)
def test_proxies_are_addresses_and_networks(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_TRUSTED_PROXIES", written)
    assert settings.load().trusted_proxies == tuple(written.replace(",", " ").split())


@pytest.mark.parametrize(
    "written", ["*", "proxy", "10.0.0.1/8", "10.0.0.5:80", "0.0.0.0/0", "::/0", "10.0.0.5,,x", ""]
)
def test_what_is_no_proxy_is_told(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_TRUSTED_PROXIES", written)
    if written == "":
        assert settings.load().trusted_proxies == ()
        return
    with pytest.raises(SettingsError, match="INGEST_TRUSTED_PROXIES: must") as told:
        settings.load()
    assert written not in str(told.value)


ODD = {
    "empty": "",
    "spaces": "   ",
    "quotes": '"SENTINEL"',
    "a byte order mark": "\ufeffSENTINEL",
    "a list": "SENTINEL,SENTINEL",
    "lines": "SENTINEL\nSENTINEL",
    "a service": "tcp://10.0.0.7:8000",
    "huge": "9" * 5_000,
    "very long": "SENTINEL" * 2_000,
    "unicode": "SENTINEL \u0661\u0662\u0663 \U0001f600",
    "control characters": "SENTINEL\x01\x7f",
    "negative": "-1",
    "no number": "nan",
    "infinite": "inf",
    "large": "1e308",
    "a fraction": "0.5",
    "a folder": "/",
    "json": '{"SENTINEL": ["SENTINEL"]}',
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", settings.variables())
def test_an_odd_value_is_taken_or_told_in_a_sentence_that_does_not_show_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"INGEST_{name}"
    monkeypatch.setenv("INGEST_TWILIO_PUBLIC_URL", "https://hooks.example/")  # its secrets need it
    monkeypatch.setenv(variable, value)
    sentence = refusal()
    if sentence is not None:
        assert sentence.startswith(variable)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert name == "SOURCES" or "SENTINEL" not in sentence  # names of files are shown
        assert "99999" not in sentence
        assert len(sentence) < 300


def refusal() -> str | None:
    """Return why the settings cannot be loaded or used; None: they can."""
    try:
        given = settings.load()
        _ = (given.database_url and given.database, given.redis_url and given.redis)
    except SettingsError as error:
        return str(error)
    return None


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b""], ids=["utf-16", "nul", "empty"])
@pytest.mark.parametrize("name", settings.variables())
def test_an_odd_file_likewise(
    name: str, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "value"
    file.write_bytes(content)
    monkeypatch.setenv(f"INGEST_{name}_FILE", str(file))
    sentence = refusal()
    if sentence is not None:
        assert f"INGEST_{name}" in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("ages", "sentence"),
    [
        ({"event_retention_days": 30}, "INGEST_BODY_RETENTION_DAYS, which must be set"),
        (
            {"event_retention_days": 30, "body_retention_days": 31},
            "INGEST_EVENT_RETENTION_DAYS: must not be less",
        ),
        (
            {
                "event_retention_days": 30,
                "body_retention_days": 30,
                "past_event_retention_days": 30,
            },
            "INGEST_PAST_EVENT_RETENTION_DAYS: must be more",
        ),
        ({"activity_retention_days": 29}, "INGEST_ACTIVITY_RETENTION_DAYS"),
    ],
)
def test_ages_that_contradict_each_other_stop_the_start(
    ages: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        settings.load(**ages)


def test_without_a_setting_everything_is_kept() -> None:
    assert settings.load().ages.are_all_unset
    given = settings.load(body_retention_days=7, event_retention_days=7)
    assert given.ages.events is not None
    assert given.ages.events.days == 7
