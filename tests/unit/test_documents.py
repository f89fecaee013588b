"""The README and the pages of docs/ tell the truth where a test can see it."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.cli.main import program
from ingest.doctor import catalogue
from ingest.settings import variables
from ingest.sources.awalchat import Plugin as AwalChat
from ingest.sources.described import shipped

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()

GROUPS = {
    "alerts",
    "bulk-actions",
    "console",
    "deliveries",
    "destinations",
    "encryption",
    "events",
    "failures",
    "processors",
    "refusals",
    "sources",
    "views",
}
"""Commands that have commands of their own."""
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def as_written(value: object) -> str:
    if value in (None, (), {}):
        return "-"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


@pytest.mark.parametrize("name", variables())
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    field = variables()[name]
    row = f"| `INGEST_{name}` | {as_written(field.default)} | {field.description} |"
    assert row in CONFIGURATION


def test_no_setting_is_in_it_that_is_none() -> None:
    named = set(re.findall(r"^\| `INGEST_(\w+)`", CONFIGURATION, re.MULTILINE))
    assert named == set(variables())


def script_of(name: str) -> Any:
    """The script that writes a page, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[name] = script  # dataclasses look for their module
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("name", ["alerts", "capacity", "configuration", "metrics", "tasks"])
def test_a_page_is_as_its_script_writes_it(name: str) -> None:
    written = (ROOT / f"docs/{name}.md").read_text()
    assert script_of(name).page() == written, "run: python3 dev.py docs"


def test_the_pages_of_senders_are_as_their_script_writes_them() -> None:
    for name, text in script_of("senders").pages().items():
        assert (ROOT / "docs/senders" / name).read_text() == text, "run: python3 docs/senders.py"


def test_the_figures_of_the_page_on_capacity_are_where_it_took_them_from() -> None:
    figures = script_of("capacity").MEASURED
    assert len(figures) > 10
    for figure in figures:
        page = " ".join((ROOT / "docs" / figure.page).read_text().split())
        assert figure.words in page, figure


def test_no_task_takes_more_clicks_than_the_best_anchor() -> None:
    script = script_of("tasks")
    counts = json.loads(script.COUNTS.read_text())
    assert counts.keys() == script.ANCHORS.keys()
    assert len(counts) == 15
    for task, anchor in script.ANCHORS.items():
        if anchor.clicks is not None and not anchor.is_least:
            assert counts[task]["mouse"]["clicks"] <= anchor.clicks, task


def test_every_finding_of_the_doctor_is_in_the_table_with_its_advice() -> None:
    operating = (ROOT / "docs/operating.md").read_text()
    rows = re.findall(r"^\| `\w+` \| (?:error|warning) \| .*\|$", operating, re.MULTILINE)
    assert rows == [
        f"| `{kind.slug}` | {kind.severity} | {kind.advice} |" for kind in catalogue.kinds()
    ]


@page
def test_every_setting_a_page_names_is_one(page: Path) -> None:
    written = page.read_text()
    named = set(re.findall(r"\bINGEST_([A-Z0-9]+(?:_[A-Z0-9]+)*)\b", written))
    files = {name for name in named if name.endswith("_FILE") and name != "HEARTBEAT_FILE"}
    examples = {"X", "NAME_SECRETS", "LEDGER_SECRETS"}  # of no process, or of a sender in the tests
    examples |= {f"{name.replace('-', '_').upper()}_SECRETS" for name in shipped.names()}
    assert named - files - examples <= set(variables())


@page
def test_every_file_a_page_names_is_there(page: Path) -> None:
    written = page.read_text()
    for name in re.findall(r"`((?:unit|integration|acceptance)/test_\w+\.py)`", written):
        assert (ROOT / "tests" / name).exists(), name
    for name in re.findall(r"`((?:ingest|workers|tests|docs)/[\w/.-]*)`", written):
        assert "NAME" in name or (ROOT / name).exists(), name


def test_getting_started_names_every_type_that_awalchat_sends() -> None:
    started = (ROOT / "docs" / "getting-started.md").read_text()
    listed = re.search(r"AwalChat sends (.*?)\.$", started, re.MULTILINE | re.DOTALL)
    assert listed
    assert set(re.findall(r"`([\w.]+)`", listed[1])) == set(AwalChat.samples.types)


@page
def test_every_command_and_option_a_page_shows_is_there(page: Path) -> None:
    shown = re.findall(r"^\s*\$ (?:ingest|python3 dev\.py) ([^#\n|]*)", page.read_text(), re.M)
    for line in shown:
        words = line.split()
        if words[0] == "test":
            continue
        is_group = words[0] in GROUPS
        subcommand = [word for word in words[1:2] if is_group and not word.startswith("-")]
        command = [words[0], *subcommand]
        printed = CliRunner().invoke(program(), [*command, "--help"], env={"COLUMNS": "200"}).output
        assert "Usage" in printed, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in printed, (line, option)


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1_500
