"""The README tells the truth where a test can see it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.settings import variables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def as_written(value: object) -> str:
    if value in (None, (), {}):
        return "-"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


@pytest.mark.parametrize("name", variables())
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    field = variables()[name]
    row = f"| `INGEST_{name}` | {as_written(field.default)} | {field.description} |"
    assert row in README


def test_no_setting_is_in_it_that_is_none() -> None:
    named = set(re.findall(r"^\| `INGEST_(\w+)`", README, re.MULTILINE))
    assert named == set(variables())


def test_every_file_it_names_is_there() -> None:
    for name in re.findall(r"`((?:unit|integration|acceptance)/test_\w+\.py)`", README):
        assert (ROOT / "tests" / name).exists(), name
    for name in re.findall(r"`((?:ingest|workers|tests)/[\w/]+\.py)`", README):
        assert (ROOT / name).exists(), name


def test_every_command_and_option_it_shows_is_there() -> None:
    shown = re.findall(r"^\$ (?:ingest|python3 dev\.py) ([^#\n|]*)", README, re.MULTILINE)
    assert len(shown) > 10
    for line in shown:
        words = line.split()
        if words[0] == "test":
            continue
        is_group = words[0] in ("events", "deliveries", "console")
        subcommand = [word for word in words[1:2] if is_group and not word.startswith("-")]
        command = [words[0], *subcommand]
        printed = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output
        assert "Usage" in printed, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in printed, (line, option)
