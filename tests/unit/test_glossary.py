"""The glossary's words are the ones in use: a word that left does not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs/glossary.md"
HEADING = "## Words that left"


def words_that_left(page: str) -> dict[str, str]:
    """Return what each word that left is called now, by the table of a glossary."""
    _, _, table = page.partition(HEADING)
    return dict(re.findall(r"^\| `([^`|]+)` \| ([^|]+?) \|$", table, re.MULTILINE))


def texts() -> list[Path]:
    """Return what is held against the glossary: code, templates and documents of today."""
    paths = [ROOT / "dev.py", ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder, pattern in (
        ("ingest", "*.py"),
        ("workers", "*.py"),
        ("ingest/console/templates", "*.html"),
        ("docs", "*.md"),
    ):
        paths += (ROOT / folder).rglob(pattern)
    return [path for path in paths if path != GLOSSARY]


def uses(word: str, text: str) -> list[str]:
    """Return the lines of a text with a word; a private name is found by its public form."""
    pattern = re.compile(rf"\b_*{re.escape(word)}\b")
    return [line.strip() for line in text.splitlines() if pattern.search(line)]


LEFT = words_that_left(GLOSSARY.read_text())
TEXTS = {path: path.read_text() for path in texts()}


@pytest.mark.parametrize("word", LEFT)
def test_a_word_that_left_does_not_come_back(word: str) -> None:
    again = {str(path.relative_to(ROOT)): uses(word, text) for path, text in TEXTS.items()}
    assert not {path: lines for path, lines in again.items() if lines}, f"say {LEFT[word]}"


def test_the_table_of_words_that_left_is_read() -> None:
    _, _, table = GLOSSARY.read_text().partition(HEADING)
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(LEFT) > 10


def test_a_word_is_found_in_a_name_and_in_a_sentence_and_not_in_another_word() -> None:
    assert uses("hasten", "    def _hasten(): ...") == ["def _hasten(): ..."]
    assert uses("put back", "It is put back.")
    assert not uses("hasten", "hastens, Hasten, unhasten")
