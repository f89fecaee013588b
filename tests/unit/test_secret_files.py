"""Files with secrets are read again when they change, and one that is broken changes nothing."""

import os
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from ingest import settings
from ingest.errors import SettingsError
from ingest.secret_files import SecretFiles
from ingest.settings import reload_secrets, reload_text, secret_files
from tests.support.asgi import Browser
from tests.support.console import OTHER_PASSWORD, PASSWORD, TOKEN, TOKENS, console, users

OLD, NEW = "whsec_the_old_one_0123456789", "whsec_the_new_one_0123456789"


class Reader:
    """Notes what a file holds; refuses what holds `bad`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.read: list[str] = []

    def __call__(self) -> None:
        text = self._path.read_text()
        if "bad" in text:
            raise SettingsError("It is bad.", reason="bad_setting")
        self.read.append(text)


def test_a_file_is_read_once_after_it_has_stopped_changing(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("one")
    reader = Reader(file)
    files = SecretFiles([file], reader)
    files.look()
    file.write_text("half of tw")
    files.look()
    file.write_text("two, whole")
    files.look()
    assert reader.read == []
    files.look()
    files.look()
    assert reader.read == ["two, whole"]


def test_a_bad_file_or_none_is_told_once_and_the_next_good_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = LogCapture()
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[logged])
    monkeypatch.setattr("ingest.secret_files.log", log)
    file = tmp_path / "secrets"
    file.write_text("one")
    reader = Reader(file)
    files = SecretFiles([file], reader)
    file.write_text("bad")
    for _ in range(4):
        files.look()
    assert reader.read == []
    assert [entry["cause"] for entry in logged.entries] == ["It is bad."]
    # As Kubernetes does: another file in its place.
    (tmp_path / "next").write_text("two")
    (tmp_path / "next").replace(file)
    files.look()
    files.look()
    assert reader.read == ["two"]


def test_a_bug_while_reading_is_told_without_its_words_and_the_next_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = LogCapture()
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[logged])
    monkeypatch.setattr("ingest.secret_files.log", log)
    file = tmp_path / "secrets"
    file.write_text("one")
    read = []

    def reload() -> None:
        read.append(file.read_text())
        if read[-1] == OLD:
            raise ZeroDivisionError(OLD)

    files = SecretFiles([file], reload)
    for text in (OLD, NEW):
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").replace(file)
        for _ in range(3):
            files.look()
    assert read == [OLD, NEW]
    told, done = logged.entries
    assert isinstance(told.pop("exc_info"), ZeroDivisionError)  # logs tell its type and place only
    assert (told["event"], done["event"]) == ("secrets_not_reloaded", "secrets_reloaded")
    assert OLD not in str(told)


def test_a_source_gets_the_secrets_of_its_file_and_keeps_its_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secrets"
    file.write_text(OLD)
    monkeypatch.setenv("INGEST_AWALCHAT_SECRETS_FILE", str(file))
    monkeypatch.setenv("INGEST_AWALCHAT_TOLERANCE_S", "77")
    monkeypatch.setenv("INGEST_ZOOM_SECRETS", OLD)
    loaded = settings.load()
    assert secret_files(os.environ) == {"awalchat": file}
    file.write_text(f"{NEW}\n{OLD}\n")
    fresh = reload_secrets(loaded.sources, os.environ)
    assert [secret.get_secret_value() for secret in fresh["awalchat"].secrets] == [NEW, OLD]
    assert fresh["awalchat"].tolerance_s == 77
    assert fresh["zoom"] is loaded.sources["zoom"]
    for broken in ("", "too_short", '["json"]'):
        file.write_text(broken)
        with pytest.raises(SettingsError, match=r"AWALCHAT_SECRETS_FILE") as refused:
            reload_secrets(loaded.sources, os.environ)
        assert broken not in str(refused.value) or not broken
    file.unlink()
    with pytest.raises(SettingsError, match=r"No such file"):
        reload_secrets(loaded.sources, os.environ)


def test_a_variable_that_is_set_itself_is_read_from_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokens").write_text(TOKENS)
    monkeypatch.setenv("INGEST_CONSOLE_TOKENS_FILE", str(tmp_path / "tokens"))
    assert reload_text("INGEST_CONSOLE_TOKENS", os.environ) == TOKENS
    monkeypatch.setenv("INGEST_CONSOLE_TOKENS", "")
    assert reload_text("INGEST_CONSOLE_TOKENS", os.environ) is None
    assert reload_text("INGEST_CONSOLE_USERS", os.environ) is None


def bearer(browser: Browser) -> int:
    return browser.get("/events", authorization=f"Bearer {TOKEN}").status


def test_users_and_tokens_of_the_console_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = console(console_users=users(), console_tokens=TOKENS)
    alice, victor = opened.logged_in(), opened.logged_in("victor", OTHER_PASSWORD)
    assert bearer(opened.browser()) == 200
    for broken in ("alice:operator:no-hash", ""):
        with pytest.raises(SettingsError):
            opened.control.reload(broken, None)
    assert alice.get("/events").status == 200
    only_alice, _ = users("a new and longer password").split()
    opened.control.reload(only_alice, TOKENS.replace("deploy:", "other:").partition(";")[2])
    assert (alice.get("/events").status, victor.get("/events").status) == (303, 303)
    assert opened.logged_in(password="a new and longer password").get("/events").status == 200
    assert opened.browser().log_in("alice", PASSWORD).status != 303
    assert bearer(opened.browser()) == 401
