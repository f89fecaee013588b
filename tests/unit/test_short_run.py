"""The tests that `dev.py test` runs when none are named."""

from pathlib import Path

from tests.conftest import SHORT_FILES, SHORT_FOLDERS

TESTS = Path(__file__).resolve().parent.parent


def test_what_is_in_the_short_run_is_there() -> None:
    """A file that is renamed would drop out of it, and nobody would see that."""
    assert [name for name in sorted(SHORT_FILES) if not (TESTS / name).is_file()] == []
    assert [name for name in SHORT_FOLDERS if not (TESTS / name).is_dir()] == []
