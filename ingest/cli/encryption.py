"""`ingest encryption`: keys of stored bodies, and the run that changes them."""

import os
from collections import Counter
from typing import Annotated

import typer
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn
from sqlalchemy import Engine

from ingest import settings
from ingest.cli import output
from ingest.cli.database import CommandError, database
from ingest.encryption import keys, rotation
from ingest.encryption.keys import BodyKeys
from ingest.encryption.rotation import Progress
from ingest.erasure.row_rate import RowRate
from ingest.store.encryption import gate
from ingest.store.encryption import rotation as store
from ingest.store.engine import UnfitDatabase

app = typer.Typer(help="Encrypt stored bodies, and change the key.", no_args_is_help=True)

_REMAINS = (
    "What the bodies were before stays in PostgreSQL's files until they are rewritten, and in"
    " write-ahead logs and backups (docs/encryption.md):"
)
_VACUUM = "VACUUM (FULL, ANALYZE) ingest.deliveries; CHECKPOINT;"


@app.command("key")
def key() -> None:
    """Make a key, and print it. It is kept nowhere: without it the bodies cannot be read."""
    output.line(keys.make(os.urandom))


@app.command("begin")
def begin() -> None:
    """Allow receivers to encrypt with the newest key, where their role may not arrange that."""
    newest = _newest(settings.load().keys_of_bodies)
    with database() as engine:
        _begin(engine)
    output.line(f"Bodies may be encrypted with the key {newest}.")


@app.command("status")
def status(json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Count the stored bodies under each key. This reads every row, not the bodies."""
    own = settings.load().keys_of_bodies
    with database() as engine:
        bodies = _counted(engine)
        with engine.connect() as connection:
            used = gate.used(connection)
    if json:
        output.as_json(_document(bodies, own, used))
        return
    _show(bodies, own, used)


@app.command("run")
def run(
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="Store every body in clear instead.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=1, max=1_000_000_000, help="Rows to read a second, at most.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Bring every stored body to the newest key, those in clear too. Then forget unused keys.

    It runs beside everything else. Interrupted, it goes on when it is run again.
    """
    own = settings.load().keys_of_bodies
    wanted = None if decrypt else _newest(own)
    with database() as engine:
        if wanted is not None:
            _begin(engine)
        progress = _bring_all(engine, own, wanted, rate)
        bodies = _counted(engine)
        with engine.begin() as connection:
            forgotten = store.forget_unused(connection, bodies)
            used = gate.used(connection)
    left = bodies.total() - bodies[wanted]
    if json:
        output.as_json(
            _document(bodies, own, used)
            | {"written": progress.written, "left": left, "forgotten": forgotten}
            | {"tampered": progress.tampered}
        )
    else:
        _report(progress, left, forgotten)
        _show(bodies, own, used)
    if left:
        raise typer.Exit(1)


def _newest(own: BodyKeys) -> str:
    if own.newest is None:
        raise CommandError(
            "There is no key: set INGEST_BODY_KEYS. `ingest encryption key` makes one.",
            reason="no_body_key",
        )
    return own.newest


def _begin(engine: Engine) -> None:
    try:
        with engine.begin() as connection:
            gate.begin(connection)
    except UnfitDatabase as error:
        raise CommandError(str(error), reason=error.reason) from error


def _bring_all(engine: Engine, own: BodyKeys, wanted: str | None, rate: float | None) -> Progress:
    limit = RowRate(rate)
    progress = Progress()
    with _bar() as bar:
        task = bar.add_task("")
        for progress in rotation.bring_all(engine, own, wanted=wanted):
            bar.update(
                task, description=f"{progress.read:,} rows read, {progress.written:,} written"
            )
            limit.wait(progress.read)
    return progress


def _counted(engine: Engine) -> Counter[str | None]:
    with _bar() as bar:
        task = bar.add_task("")
        return rotation.count_all(
            engine, tell=lambda counted: bar.update(task, description=f"{counted:,} counted")
        )


def _bar() -> Bar:
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    return Bar(*columns, console=output.console(), disable=not output.is_terminal(), transient=True)


def _report(progress: Progress, left: int, forgotten: list[str]) -> None:
    output.line(f"{output.number_of(progress.written, 'body', 'bodies')} written.")
    for name, number in sorted(progress.missing.items()):
        output.line(f"{number:,} left alone: INGEST_BODY_KEYS lacks their key, {name}.")
    for delivery in progress.tampered:
        output.line(f"Left alone, because it was changed: the body of delivery {delivery}.")
    if forgotten:
        output.line(f"No longer used, and may go: {', '.join(forgotten)}.")
    if left > progress.missing.total() + len(progress.tampered):
        output.line("Deliveries that came meanwhile are under another key: run it again.")
    if progress.written:
        output.line(_REMAINS)
        output.line(f"  {_VACUUM}")


def _show(bodies: Counter[str | None], own: BodyKeys, used: list[str]) -> None:
    names = sorted({*bodies, *own.ids, *used} - {None}, key=str)
    rows = [(name, _role(name, own), bodies[name]) for name in names]
    output.table("Bodies", ["key", "", "bodies"], [*rows, ("none", "in clear", bodies[None])])


def _role(name: str | None, own: BodyKeys) -> str:
    if name not in own.ids:
        return "not in INGEST_BODY_KEYS"
    return "newest" if name == own.newest else "older"


def _document(bodies: Counter[str | None], own: BodyKeys, used: list[str]) -> dict[str, object]:
    return {
        "newest": own.newest,
        "keys": {name: number for name, number in bodies.items() if name is not None},
        "clear": bodies[None],
        "missing": sorted({name for name in used if name not in own.ids}),
    }
