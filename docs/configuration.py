"""Writes docs/configuration.md from the settings: `python3 docs/configuration.py`."""

from pathlib import Path

from ingest.settings import variables

PAGE = Path(__file__).with_suffix(".md")

_HEAD = """# Configuration

Settings come from the environment, with the prefix `INGEST_`. `INGEST_X_FILE` names a file that
holds `INGEST_X`. A bad value stops the start. A variable that is no setting is reported, with the
name that was probably meant. What Kubernetes injects for Services whose names begin with `ingest`
is ignored.

Secrets stand one on a line or with commas between them, the newest first. They are ASCII without
white space, 16 characters or more. Quotes, comments, JSON and byte order marks are refused.

| variable | default | what |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page: every setting with its default and its description."""
    return _HEAD + "".join(
        f"| `INGEST_{name}` | {_as_written(field.default)} | {field.description} |\n"
        for name, field in variables().items()
    )


def _as_written(default: object) -> str:
    if default in (None, (), {}):
        return "-"
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
