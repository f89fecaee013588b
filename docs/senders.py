"""Writes docs/senders/*.md from the shipped descriptions: `python3 docs/senders.py`."""

from collections.abc import Mapping
from pathlib import Path

from ingest.settings import Settings
from ingest.sources.described import shipped
from ingest.sources.described.description import Description
from ingest.sources.described.explain import explain
from ingest.sources.described.source import source_class

FOLDER = Path(__file__).parent / "senders"
_COMMANDS = (
    "and the secret in `{variable}`. `ingest sources check` says what follows for your own file,"
    " `ingest sources verify` why a saved request is refused."
)
_EXAMPLE_URL = "https://hooks.example.com/webhooks/"


def pages() -> Mapping[str, str]:
    """Return the page of each shipped description, by the name of its file."""
    return {f"{name}.md": _page(name) for name in shipped.names()}


def _page(name: str) -> str:
    table = shipped.table(name)
    needs_url = "url" not in table and "{url}" in table["verify"].get("signed", "")
    more = {"url": f"{_EXAMPLE_URL}{name}"} if needs_url else {}
    description = Description.model_validate(table | more)
    source = source_class(name, description)
    sentences = explain(source, max_body_bytes=Settings.model_fields["max_body_bytes"].default)
    lines = [f"[{name}]", f'preset = "{name}"', *(f'{key} = "{more[key]}"' for key in more)]
    parts = [
        f"# {description.title}",
        f"At the sender: {description.page.setup}" if description.page.setup else "",
        "Here, in a file that `INGEST_SOURCES` names:",
        "```toml\n" + "\n".join(lines) + "\n```",
        _COMMANDS.format(variable=source.variable("secrets")),
        "## What is done with a request",
        "\n".join(f"- {sentence}" for sentence in sentences),
        *(["## To know"] if description.page.notes else []),
        "\n".join(f"- {note}" for note in description.page.notes),
        f"The sender's own documentation: <{description.page.documentation}>."
        if description.page.documentation
        else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
