"""Erasing a person from the console: ordered, searched, confirmed, and run in the background."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from ingest.console.auth.identity import Identity
from ingest.console.auth.roles import Role
from ingest.console.errors import BadRequest, NotPossible
from ingest.console.services.erasure_runner import ErasureRunner
from ingest.console.services.erasures import Erasures, Wanted
from ingest.encryption.keys import BodyKeys, key_id
from ingest.erasure import orders, sentences
from ingest.erasure.report import Report
from ingest.erasure.request import BadPerson
from ingest.errors import BodyKeyMissing
from ingest.store.erasure import ledger
from tests.integration.conftest import Worker
from tests.integration.test_erasure import (
    AWALCHAT,
    OMAR,
    SARA,
    SOURCES,
    about_omar,
    about_sara,
    erase_by_command,
    holds,
    message,
)
from tests.integration.test_what_senders_send import BUILT_IN
from tests.support.deliver import deliver
from tests.support.erasing import begin, everything, store
from tests.support.rows import execute, one, rows
from workers.registry import Declaration

NOURA = Identity(name="noura", role=Role.OPERATOR, via="password")
OF_SARA = Wanted(phones=["+966 51 234 5678"], reason="asked on the first of May")


@pytest.fixture
def worker(declared: list[Declaration], make_worker: Callable[..., Worker]) -> Worker:
    declared += BUILT_IN
    return make_worker()


@pytest.fixture
def runner(engine: Engine) -> ErasureRunner:
    """What the console's thread runs, without the thread."""
    return ErasureRunner(engine, SOURCES)


@pytest.fixture
def erasures(engine: Engine, runner: ErasureRunner) -> Erasures:
    return Erasures(engine, runner, SOURCES)


def run(runner: ErasureRunner, erasures: Erasures, number: int) -> Report:
    """Let the runner work until it has nothing more to do."""
    while runner.run_batches():
        pass
    return erasures.read(number)


@pytest.fixture
def found(
    engine: Engine, database_url: str, worker: Worker, runner: ErasureRunner, erasures: Erasures
) -> Report:
    """Sara, found and not confirmed, beside Omar."""
    worker.process(store(database_url, AWALCHAT, [*about_omar(), *about_sara()]))
    return run(runner, erasures, erasures.order(NOURA, OF_SARA).id)


def test_a_person_is_found_confirmed_and_erased(
    engine: Engine, found: Report, runner: ErasureRunner, erasures: Erasures
) -> None:
    assert (found.status, found.sources) == ("found", {"awalchat": 8})
    assert found.known == {
        "phone number": 1,
        "contact": 1,
        "conversation": 1,
        "order": 1,
        "message": 1,
    }
    assert holds(engine)
    with pytest.raises(BadRequest, match="another one"):
        erasures.erase(NOURA, found.id, typed=OMAR)
    assert run(runner, erasures, found.id).status == "found"
    erasures.erase(NOURA, found.id, typed="00966 512345678")
    ended = run(runner, erasures, found.id)
    assert (ended.status, ended.tables["events"]) == ("finished", 8)
    assert not holds(engine)
    assert holds(engine, OMAR)
    assert [(row["action"], row["target"], row["reason"]) for row in actions(engine)] == [
        ("search person", f"erasure {found.id}", None),
        ("erase person", f"erasure {found.id}", OF_SARA.reason),
    ]


def actions(engine: Engine) -> list[dict[str, Any]]:
    return rows(engine, "SELECT action, target, reason FROM actions ORDER BY id")


def test_what_was_searched_for_is_shown_nowhere(
    found: Report, erasures: Erasures, engine: Engine
) -> None:
    (listed,) = erasures.newest(limit=5)
    assert listed == found
    assert SARA not in repr(found)
    assert SARA[-8:] not in json.dumps(actions(engine))


def test_an_order_that_comes_again_is_the_same_until_the_person_is_erased(
    found: Report, runner: ErasureRunner, erasures: Erasures
) -> None:
    assert erasures.order(NOURA, OF_SARA).id == found.id
    assert erasures.erase(NOURA, found.id).status == "erasing"
    assert erasures.order(NOURA, OF_SARA).id == found.id
    assert erasures.erase(NOURA, found.id).status == "erasing"
    run(runner, erasures, found.id)
    assert erasures.erase(NOURA, found.id).status == "finished"
    again = erasures.order(NOURA, OF_SARA)
    assert again.id != found.id
    (before,) = erasures.erased_before(again.id)
    assert f"(erasure {found.id})" in before
    ended = run(runner, erasures, again.id)
    assert (ended.status, ended.problem) == ("cancelled", sentences.NOTHING)


def test_another_source_is_another_order(found: Report, erasures: Erasures) -> None:
    other = Wanted(phones=OF_SARA.phones, source="whatsapp")
    assert erasures.order(NOURA, other).id != found.id
    with pytest.raises(BadRequest, match="no such source"):
        erasures.order(NOURA, Wanted(phones=OF_SARA.phones, source="nobody"))


@pytest.mark.parametrize(
    "narrower", [Wanted(phones=OF_SARA.phones, source="awalchat"), OF_SARA], ids=["source", "names"]
)
def test_an_order_that_asks_for_more_than_was_erased_is_not_cancelled(
    found: Report, runner: ErasureRunner, erasures: Erasures, narrower: Wanted
) -> None:
    wider = erasures.order(NOURA, Wanted(phones=[*OF_SARA.phones, OMAR])).id
    assert run(runner, erasures, wider).status == "found"
    number = erasures.order(NOURA, narrower).id
    run(runner, erasures, number)
    erasures.erase(NOURA, number)
    assert run(runner, erasures, number).status == "finished"
    assert erasures.read(wider).status == "found"
    # The first asks for one person in all sources.
    assert erasures.read(found.id).status == ("found" if narrower.source else "finished")


def test_an_order_that_is_cancelled_while_it_searches_keeps_no_key_of_what_it_has_read(
    engine: Engine, found: Report, erasures: Erasures
) -> None:
    """The keys of messages and identities hold numbers."""
    execute(
        engine,
        "UPDATE erasures SET status = 'searching',"
        " position = position || jsonb_build_object('after', jsonb_build_array('966512345678'))",
    )
    erasures.cancel(NOURA, found.id)
    assert SARA not in str(one(engine, "SELECT position FROM erasures"))


def test_a_console_that_restarts_goes_on_with_searching_and_erasing(
    engine: Engine,
    database_url: str,
    worker: Worker,
    erasures: Erasures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker.process(store(database_url, AWALCHAT, [*about_omar(), *about_sara()]))
    monkeypatch.setattr(ledger, "_READ", ledger.read_of(rows=3))
    number = erasures.order(NOURA, OF_SARA).id
    while ErasureRunner(engine, SOURCES).run_batches():
        pass
    found = erasures.read(number)
    assert (found.status, found.sources) == ("found", {"awalchat": 8})
    assert found.rows_read > 24
    erasures.erase(NOURA, number)
    while ErasureRunner(engine, SOURCES).run_batches():
        pass
    ended = erasures.read(number)
    assert (ended.status, ended.tables["events"]) == ("finished", 8)
    assert not holds(engine)


def test_an_order_that_is_cancelled_erases_nobody_and_forgets_whom_it_meant(
    engine: Engine, found: Report, runner: ErasureRunner, erasures: Erasures
) -> None:
    before = everything(engine).count(SARA)
    cancelled = erasures.cancel(NOURA, found.id)
    assert (cancelled.status, cancelled.known) == ("cancelled", {})
    assert one(engine, "SELECT identifiers FROM erasures") is None
    assert run(runner, erasures, found.id) == cancelled
    assert everything(engine).count(SARA) < before
    with pytest.raises(NotPossible, match="was cancelled"):
        erasures.erase(NOURA, found.id)
    assert holds(engine)


def test_what_is_confirmed_is_not_cancelled(found: Report, erasures: Erasures) -> None:
    erasures.erase(NOURA, found.id)
    with pytest.raises(NotPossible, match="was confirmed"):
        erasures.cancel(NOURA, found.id)


def test_nobody_is_erased_before_the_search_has_ended(erasures: Erasures) -> None:
    ordered = erasures.order(NOURA, OF_SARA)
    with pytest.raises(NotPossible, match="not searched for yet"):
        erasures.erase(NOURA, ordered.id)


def test_what_nobody_confirms_within_a_day_is_cancelled(
    engine: Engine, found: Report, runner: ErasureRunner, erasures: Erasures
) -> None:
    execute(engine, "UPDATE erasures SET advanced_at = now() - interval '23 h'")
    assert run(runner, erasures, found.id).status == "found"
    execute(engine, "UPDATE erasures SET advanced_at = now() - interval '25 h'")
    ended = run(runner, erasures, found.id)
    assert (ended.status, ended.problem) == ("cancelled", "Nobody confirmed it within a day.")
    assert one(engine, "SELECT identifiers FROM erasures") is None


def test_a_conversation_of_several_people_is_refused(
    engine: Engine, database_url: str, worker: Worker, runner: ErasureRunner, erasures: Erasures
) -> None:
    worker.process(store(database_url, AWALCHAT, [message(SARA, 9), message(OMAR, 9)]))
    ordered = erasures.order(NOURA, Wanted(conversations=["9"]))
    ended = run(runner, erasures, ordered.id)
    assert ended.status == "cancelled"
    assert "2 people" in (ended.problem or "")


def test_a_reason_that_names_the_person_is_not_kept(
    engine: Engine, database_url: str, worker: Worker, runner: ErasureRunner, erasures: Erasures
) -> None:
    with pytest.raises(BadPerson, match="reason names the person"):
        erasures.order(NOURA, Wanted(phones=[SARA], reason="call +966 51 234 5678"))
    worker.process(store(database_url, AWALCHAT, about_sara()))
    # Only the search learns that the contact has this number.
    by_contact = Wanted(contacts=["5"], reason="call +966 51 234 5678")
    ended = run(runner, erasures, erasures.order(NOURA, by_contact).id)
    assert (ended.status, ended.reason) == ("cancelled", None)
    assert "names the person" in (ended.problem or "")
    assert [row["reason"] for row in actions(engine)] == [None]


def test_nobody_is_erased_from_here_either_while_an_older_worker_runs(
    engine: Engine, found: Report, erasures: Erasures
) -> None:
    execute(
        engine,
        "INSERT INTO processes (id, kind, host, pid, version, started_at, seen_at)"
        " VALUES ('old', 'worker', 'h', 1, '0', now(), now())",
    )
    with pytest.raises(NotPossible, match="worker old is of an older release"):
        erasures.erase(NOURA, found.id)
    assert erasures.read(found.id).status == "found"


def test_an_erasure_that_a_command_left_goes_on_when_an_operator_says_so(
    engine: Engine, database_url: str, worker: Worker, runner: ErasureRunner, erasures: Erasures
) -> None:
    worker.process(store(database_url, AWALCHAT, about_sara()))
    number, _ = begin(engine, phones=[SARA], sources=SOURCES)
    left = run(runner, erasures, number)
    assert (left.status, left.background) == ("erasing", False)
    assert holds(engine)
    erasures.resume(NOURA, number)
    assert run(runner, erasures, number).status == "finished"
    assert not holds(engine)


def test_the_command_that_erases_the_person_ends_the_order(
    engine: Engine, database_url: str, found: Report, erasures: Erasures
) -> None:
    done = erase_by_command(database_url, "--yes")
    assert done.returncode == 0, done.stderr
    assert not holds(engine)
    ended = erasures.read(found.id)
    assert (ended.status, ended.problem) == ("cancelled", "Erasure 2 has erased the person.")


def test_a_console_that_lacks_the_receivers_key_says_so(
    engine: Engine, database_url: str, runner: ErasureRunner, erasures: Erasures
) -> None:
    key = bytes(range(32))
    deliver(database_url, about_sara(), keys=BodyKeys([key]))
    waiting = run(runner, erasures, erasures.order(NOURA, OF_SARA).id)
    assert (waiting.status, waiting.problem) == ("searching", str(BodyKeyMissing(key_id(key))))


def test_a_batch_that_fails_says_why_and_is_repeated(
    engine: Engine,
    found: Report,
    runner: ErasureRunner,
    erasures: Erasures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    erasures.erase(NOURA, found.id)

    def fail(*_given: Any) -> Any:
        raise OperationalError("SELECT", {"phone": SARA}, ConnectionRefusedError(SARA))

    with monkeypatch.context() as patched:
        patched.setattr(orders, "advance", fail)
        assert not runner.run_batches()
    waiting = erasures.read(found.id)
    assert waiting.status == "erasing"
    assert waiting.problem
    assert SARA not in waiting.problem
    ended = run(runner, erasures, found.id)
    assert (ended.status, ended.problem) == ("finished", None)
