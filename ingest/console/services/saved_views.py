"""Saved views as the console shows and changes them."""

from sqlalchemy import Engine

from ingest.console.auth.identity import Identity
from ingest.console.ui import masking
from ingest.settings import Settings
from ingest.store import views
from ingest.store.views import View


def visible(engine: Engine, settings: Settings, by: Identity) -> tuple[View, ...]:
    """Return the views that somebody may see: not those that name what is hidden from viewers."""
    with engine.connect() as connection:
        every = views.every(connection)
    if not masking.applies(settings, by):
        return tuple(every)
    return tuple(view for view in every if masking.shows_view(view))


def save(engine: Engine, by: Identity, *, name: str, query: str, oldest_first: bool) -> View:
    """Keep a search, whose text was understood, under a name. Raises as `views.save`."""
    with engine.begin() as connection:
        return views.save(connection, by=by, name=name, query=query, oldest_first=oldest_first)


def rename(engine: Engine, by: Identity, number: int, name: str) -> View:
    """Give a view another name. Raises as `views.rename`."""
    with engine.begin() as connection:
        return views.rename(connection, number, name, by=by)


def delete(engine: Engine, by: Identity, number: int) -> None:
    """Remove a view. Raises as `views.delete`."""
    with engine.begin() as connection:
        views.delete(connection, number, by=by)
