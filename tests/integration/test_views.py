"""Saved views: kept for all users, changed under their name, and told in the audit log."""

import pytest
from sqlalchemy import Engine

from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.errors import AlreadyThere, InvalidName, NotFound
from ingest.store import views
from ingest.store.reports import audit_log
from ingest.store.search.words import words
from tests.integration.test_erasure import AWALCHAT, SARA
from tests.support.erasing import begin, everything, finish
from tests.support.rows import execute
from tests.support.states import store

NOURA = Identity(name="noura", role=Role.OPERATOR, via="password")
OMAR = Identity(name="omar", role=Role.OPERATOR, via="password")


def test_a_view_is_saved_renamed_and_deleted_and_the_audit_log_says_by_whom(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        late = views.save(connection, by=NOURA, name=" Late ", query="since:2h", oldest_first=True)
        views.save(connection, by=OMAR, name="dead", query="state:dead", oldest_first=False)
        assert [view.name for view in views.every(connection)] == ["dead", "Late"]
        assert views.named(connection, "Late") == late
        assert (late.query, late.oldest_first, late.made_by) == ("since:2h", True, "noura")
        with pytest.raises(AlreadyThere, match="'dead'"):
            views.save(connection, by=NOURA, name="dead", query="", oldest_first=False)
        with pytest.raises(AlreadyThere):
            views.rename(connection, late.id, "dead", by=NOURA)
        for name in ("", "  ", "a\nb", "x" * 101):
            with pytest.raises(InvalidName):
                views.rename(connection, late.id, name, by=NOURA)
        assert views.rename(connection, late.id, "متأخر", by=OMAR).query == "since:2h"
        views.delete(connection, late.id, by=NOURA)
        with pytest.raises(NotFound):
            views.delete(connection, late.id, by=NOURA)
        with pytest.raises(NotFound):
            views.rename(connection, late.id, "new", by=NOURA)
        with pytest.raises(NotFound, match="no view 'Late'"):
            views.named(connection, "Late")
        told = [
            (action.by, action.action, action.target)
            for action in audit_log.newest(connection, limit=9)
        ]
    assert told == [
        ("noura", "delete view", "متأخر: since:2h"),
        ("omar", "rename view", "Late to متأخر"),
        ("omar", "save view", "dead: state:dead"),
        ("noura", "save view", "Late: since:2h"),
    ]


def test_a_view_that_names_a_person_goes_when_the_person_is_erased(engine: Engine) -> None:
    sources = {AWALCHAT.slug: AWALCHAT}
    with engine.begin() as connection:
        for name, query in (("hers", f"phone:{SARA}"), ("dead", "state:dead")):
            views.save(connection, by=OMAR, name=name, query=query, oldest_first=False)
    number, _ = begin(engine, phones=[SARA], sources=sources)
    finish(engine, number, sources)
    with engine.connect() as connection:
        assert [view.name for view in views.every(connection)] == ["dead"]
    assert SARA not in everything(engine)


def test_the_search_field_is_told_what_there_is(engine: Engine, database_url: str) -> None:
    ids = store(engine, database_url)
    execute(
        engine,
        "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome, error_type)"
        " SELECT id, attempt, 'delivery', now(), now(), 'failed', 'E' FROM jobs"
        " WHERE event = ANY(:ids) AND state IN ('dead', 'succeeded')",
        ids=ids[:10],
    )
    with engine.connect() as connection:
        known = words(connection)
    assert known.types == ("contact.made", "order.created", "order.lost")
    assert (known.sources, known.errors, known.processors) == (("awalchat",), ("E",), ())
