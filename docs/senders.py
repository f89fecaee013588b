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
_RECOVERY = (
    "{title} sends nothing again by itself. `ingest recover {name}` asks for what failed. For that"
    " it needs to know which webhooks send here:"
)
_EXAMPLE_HOOKS = '"repos/acme/shop/hooks/12345678", "orgs/acme/hooks/23456789"'
_RECOVERING = """\
The number is the last part of the webhook's address in its settings. The token is read from
`{variable}`, or from what `token_env` or `token_file` names. It needs the permission to write
webhooks: "Webhooks" of the repository or the organization. For the webhook of an app, `app/hook`,
set `app` to the client id of the app; what stands in place of the token is then the app's private
key. `url` is the API's address, for GitHub Enterprise Server.

```console
$ ingest recover {name} --since 3d --dry-run
$ ingest recover {name} --since 3d
```

It lists the deliveries, takes those of which no attempt succeeded, leaves out the events that are
here already, and asks for the rest, one a second (`--rate`). So it may be run as often as you like,
every hour from cron for example. It waits when {title} limits requests. A delivery that came but
was answered too late for {title} counts as failed there, and as here already."""
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
        *_recovery(name, description),
        f"The sender's own documentation: <{description.page.documentation}>."
        if description.page.documentation
        else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _recovery(name: str, description: Description) -> list[str]:
    """Return how to recover what was missed, in paragraphs; none: it cannot be recovered."""
    recover = description.recover
    if recover is None:
        return []
    return [
        "## Deliveries that were missed",
        _RECOVERY.format(name=name, title=description.title, variable=recover.token_env),
        f"```toml\n[{name}.recover]\nhooks = [{_EXAMPLE_HOOKS}]\n```",
        _RECOVERING.format(name=name, title=description.title, variable=recover.token_env),
    ]


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
