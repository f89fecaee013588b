"""Commands meet arguments, terminals and users that are not what they expect."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.cli import author, main

ARABIC = "السلام"
TITLE = f"{ARABIC} ü \N{GRINNING FACE}"
PREPARED = "from ingest.cli import output, start; start.prepare([]); "
Run = Callable[..., subprocess.CompletedProcess[bytes]]
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Variables that may say what the user is called."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs Python code in a process whose locale knows ASCII only."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        own = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**own, **environment},
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "command",
    [
        ["events", "list", "--search", os.fsdecode(b"caf\xe9")],
        ["replay", os.fsdecode(b"caf\xe9")],
        ["discard", "0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f", "--reason", os.fsdecode(b"caf\xe9")],
        [os.fsdecode(b"caf\xe9")],
    ],
)
def test_an_argument_that_is_no_text_is_refused(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ingest", *command])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == r"ingest: The argument caf\xe9 is not text in utf-8."


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("latin-1", rb"\u0627\u0644\u0633\u0644\u0627\u0645" + b" \xfc" + rb" \U0001f600"),
        ("ascii", rb"\u0627\u0644\u0633\u0644\u0627\u0645 \xfc \U0001f600"),
        ("utf-8", TITLE.encode()),
    ],
)
def test_what_the_terminal_cannot_show_is_escaped(run: Run, encoding: str, printed: bytes) -> None:
    ended = run(f"{PREPARED} output.line({TITLE!a})", PYTHONIOENCODING=encoding)
    assert (ended.stdout, ended.stderr) == (printed + b"\n", b"")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_is_json_in_every_encoding(run: Run, encoding: str) -> None:
    ended = run(f"{PREPARED} output.as_json({TITLE!a})", PYTHONIOENCODING=encoding)
    assert json.loads(ended.stdout.decode(encoding)) == TITLE


def test_what_is_logged_does_not_get_into_what_is_printed(run: Run) -> None:
    logged = "from ingest import logs; logs.logger('of a test').warning('held_up'); "
    ended = run(f"{PREPARED} {logged} output.as_json({{}})")
    assert ended.stdout == b"{}\n"
    assert b"held_up" in ended.stderr


def test_a_file_is_written_in_utf_8_wherever_it_is_written(run: Run, tmp_path: Path) -> None:
    code = (
        "from contextlib import ExitStack; from pathlib import Path;"
        "from ingest.cli import simulate, types;"
        f"types._write({ARABIC!a}, Path('models.py'));"
        f"simulate._open(Path('journal'), ExitStack()).write({ARABIC!a})"
    )
    ended = run(code)
    assert ended.returncode == 0, ended.stderr
    for name in ("models.py", "journal"):
        assert (tmp_path / name).read_text(encoding="utf-8") == ARABIC


def test_a_secret_is_read_as_utf_8_wherever_it_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(ARABIC, encoding="utf-8")
    code = (
        "from pathlib import Path; from ingest.recovery import tokens;"
        "from ingest.secret_references import Reference; file = Path('secret');"
        f"assert Reference(None, file).read({{}}) == tokens.read(None, file) == {ARABIC!a}"
    )
    ended = run(code)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("raised", [KeyError, OSError])
def test_a_user_without_a_name_is_called_by_number(
    monkeypatch: pytest.MonkeyPatch, raised: type[Exception]
) -> None:
    """Python raises KeyError, and from 3.13 on OSError."""

    def nobody(_uid: int) -> None:
        raise raised

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert author.author().name == "uid 12345"
