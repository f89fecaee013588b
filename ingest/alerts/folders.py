"""The folders whose disks can run out, as far as they are on this machine."""

from pathlib import Path

from sqlalchemy import Connection

from ingest.settings import Settings
from ingest.store.sql import statement

_LOCAL = ("", "localhost", "127.0.0.1", "::1")
# No row for a role that may not read it.
_FOLDER = statement("SELECT setting FROM pg_settings WHERE name = 'data_directory'")


def on_disks(settings: Settings, connection: Connection) -> list[Path]:
    """Return the data folder, and PostgreSQL's if its server may be on this machine."""
    folders = [settings.data]
    folder = connection.execute(_FOLDER).scalar()
    if folder and _is_local(settings):
        folders.append(Path(folder))
    return folders


def _is_local(settings: Settings) -> bool:
    host = settings.database.parameters.get("host", "")
    return host.startswith("/") or host in _LOCAL
