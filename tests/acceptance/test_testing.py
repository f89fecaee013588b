"""Processors are tested as docs/testing.md says, and their mistakes are found so."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.servers import Servers

PAGE = (Path(__file__).parents[2] / "docs/testing.md").read_text()
MODULE, TESTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of the page, in a folder of their own."""
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "test_shop.py").write_text(TESTS)
    return tmp_path


@pytest.fixture
def run(servers: Servers, project: Path) -> Run:
    """Runs pytest in the folder of the project, on the server of these tests."""

    def start(
        *arguments: str, on: str | None = servers.database_url("postgres")
    ) -> subprocess.CompletedProcess[str]:
        where = [] if on is None else ["--ingest-database", on]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("INGEST_", "PYTEST_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *where, *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def replaced(project: Path, file: str, old: str, new: str) -> None:
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))


def failed(finished: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^FAILED test_shop.py::(\S+)", finished.stdout, re.MULTILINE))


def test_the_tests_of_the_page_pass_and_leave_no_database(run: Run, servers: Servers) -> None:
    finished = run()
    assert "8 passed" in finished.stdout, finished.stdout + finished.stderr
    listed = subprocess.run(
        [servers.binaries / "psql", servers.direct_url("postgres"), "-Atc",
         "SELECT count(*) FROM pg_database WHERE datname LIKE 'ingest\\_test\\_%'"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed.stdout.strip() == "0"


def test_without_a_server_they_start_one(run: Run) -> None:
    finished = run("-k", "recorded and not negative", on=None)
    assert "1 passed" in finished.stdout, finished.stdout + finished.stderr


def test_each_fault_finds_the_mistake_that_it_is_for(run: Run, project: Path) -> None:
    replaced(project, "shop.py", " ON CONFLICT DO NOTHING", "")
    replaced(project, "shop.py", "event.idempotency_key)", "str(event.attempt))")
    (project / "test_shop.py").write_text(
        TESTS
        + """
@under_faults
def test_the_first_order_wins(pipeline):
    orders = [pipeline.event("order.created", order_id=1, total=n) for n in (1, 2)]
    pipeline.run_all(shop.record_revenue, orders)
    assert revenue(pipeline) == 1
"""
    )
    counts = "test_each_order_counts_once_and_the_crm_can_tell_repeats"
    assert failed(run("-k", "counts_once or first_order")) == {
        *(f"{counts}[{fault}]" for fault in ("crash", "duplicate")),
        "test_the_first_order_wins[reorder]",
    }


def test_mistakes_in_a_processor_or_its_test_are_told(run: Run, project: Path) -> None:
    (project / "test_shop.py").write_text(
        '''
import time

import pytest
from sqlalchemy import text

import shop
from pydantic import BaseModel, model_validator
from workers import Event, processor
from workers.testing import NotDeclared


@processor("a.*", timeout_s=0.2)
def sleep(event, db):
    time.sleep(60)


class Endless(BaseModel):
    @model_validator(mode="before")
    def wait(cls, data):
        time.sleep(60)


@processor("a.*", timeout_s=0.2)
def read(event: Event[Endless], db):
    pass


@processor("a.*")
def commit(event, db):
    db.commit()


@processor("a.*")
def refer(event, db):
    db.execute(text("INSERT INTO child VALUES (7)"))


@processor("a.*", batch=True)
def fail_one(events, db):
    for event in events:
        db.execute(text("INSERT INTO parent VALUES (:n)"), {"n": event.data["n"]})
        if event.data["n"] == 2:
            raise ValueError("two")


@pytest.fixture(scope="session")
def pipeline_tables():
    return """
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    """


def test_time(pipeline):
    for function in (sleep, read):
        assert pipeline.run(function, pipeline.event("a.b")).outcome == "timed_out"


def test_commit(pipeline):
    attempt = pipeline.run(commit, pipeline.event("a.b"))
    assert attempt.error.startswith("TransactionEnded: a processor must not commit")
    assert pipeline.run(refer, pipeline.event("a.b")).outcome == "failed"


def test_deferred_constraints(pipeline):
    attempt = pipeline.run(refer, pipeline.event("a.b"))
    assert "IntegrityError" in attempt.error
    pipeline.db.execute(text("INSERT INTO parent VALUES (7)"))
    assert pipeline.run(refer, pipeline.event("a.b")).succeeded
    assert pipeline.db.scalar(text("SELECT count(*) FROM child")) == 1


def test_halving(pipeline):
    events = [pipeline.event("a.b", n=n) for n in (1, 2, 3)]
    attempts = pipeline.run_all(fail_one, events)
    assert [attempt.outcome for attempt in attempts] == ["succeeded", "failed", "succeeded"]
    assert pipeline.db.scalar(text("SELECT sum(id) FROM parent")) == 4


def test_strangers(pipeline):
    with pytest.raises(NotDeclared, match="is no processor"):
        pipeline.run(print, pipeline.event("a.b"))
    with pytest.raises(NotDeclared, match="commit is a processor of a.*, not of order.created"):
        pipeline.run(commit, pipeline.event("order.created"))


def test_nothing_is_left(pipeline):
    assert pipeline.db.scalar(text("SELECT count(*) FROM parent")) == 0
'''
    )
    finished = run()
    assert "6 passed" in finished.stdout, finished.stdout + finished.stderr


def test_each_sender_has_samples_that_take_fields(run: Run, project: Path) -> None:
    (project / "test_shop.py").write_text(
        """
from ingest import settings
from ingest.sources.registry import configured


def test_samples(pipeline):
    sources = configured(settings.load().sources)
    assert len(sources) >= 3
    made = [
        (slug, pipeline.event(type_, source=slug, data={"for_a_test": "7"}))
        for slug, source in sources.items()
        for type_ in source.samples.types
    ]
    assert made
    for slug, event in made:
        assert event.data["for_a_test"] == "7", slug
        again = pipeline.read(event.body, source=slug)
        assert again.data == event.data
"""
    )
    finished = run()
    assert "1 passed" in finished.stdout, finished.stdout + finished.stderr
