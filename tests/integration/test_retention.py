"""What is too old goes, nothing else does, and no event ever comes twice."""

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from ingest.console.app import create_app
from ingest.settings import Settings
from ingest.store.address import parse
from ingest.store.bulk import replay
from ingest.store.engine import Role, create_engine
from ingest.store.pipeline import jobs
from ingest.store.reports import event_detail, heartbeats, known_events, totals
from ingest.store.reports.heartbeats import ProcessIdentity
from ingest.store.retention import obstacles
from ingest.store.retention.ages import Ages
from ingest.store.search.filters import EventFilter
from tests.support.asgi import Browser, running
from tests.support.deliver import deliver, order
from tests.support.retention import admit, days, deliver_at, end, is_ready, remove
from tests.support.rows import execute, one, rows
from workers.relay.retention import Retention

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MONTH = Ages(events=days(30))


@pytest.fixture
def ready(engine: Engine) -> Engine:
    is_ready(engine)
    return engine


def old(
    engine: Engine, *names: str, age: float = 60, state: str | None = "succeeded"
) -> list[UUID]:
    """Events of so many days before NOW, whose jobs have ended so, or not at all."""
    made = [deliver_at(engine, name, NOW - days(age)) for name in names]
    admit(engine, made)
    if state is not None:
        end(engine, made, NOW - days(age), state=state)
    return made


def kept(engine: Engine) -> set[str]:
    return {row["event_id"] for row in rows(engine, "SELECT event_id FROM events")}


def test_finished_events_go_with_their_jobs_and_attempts(ready: Engine) -> None:
    names = [f"a:{n}" for n in range(7)]
    old(ready, *names)
    execute(
        ready,
        "INSERT INTO attempts (job, number, trigger, started_at, finished_at, outcome)"
        " SELECT id, 1, 'delivery', now(), now(), 'failed' FROM jobs",
    )
    old(ready, "young", age=29)
    assert remove(ready, MONTH, NOW) == Counter(events=7, jobs=7, attempts=7)
    assert kept(ready) == {"young"}
    assert one(ready, "SELECT count(*) FROM jobs") == 1
    assert one(ready, "SELECT count(*) FROM attempts") == 0
    assert {
        row["kind"]: row["removed"] for row in rows(ready, "SELECT kind, removed FROM retention")
    } == {"events": 7, "jobs": 7, "attempts": 7, "duplicates": 0}


def test_the_link_of_an_edited_copy_goes_with_the_copy(ready: Engine) -> None:
    origin, copy = old(ready, "a:1", "a:2")
    (young,) = old(ready, "young", age=29)
    execute(
        ready,
        "INSERT INTO copies (number, event, origin, by)"
        " SELECT gen_random_uuid(), event, :origin, 'noura'"
        " FROM unnest(CAST(:copies AS uuid[])) AS made (event)",
        origin=origin,
        copies=[copy, young],
    )
    remove(ready, MONTH, NOW)
    assert [row["event"] for row in rows(ready, "SELECT event FROM copies")] == [young]


def test_what_is_not_finished_stays(ready: Engine) -> None:
    old(ready, "pending", state=None)
    old(ready, "dead letter", state="dead")
    old(ready, "finished")
    (running,) = old(ready, "running", state=None)
    execute(
        ready,
        "UPDATE jobs SET state = 'running', lease_until = now(), next_attempt_at = NULL,"
        " hinted_until = NULL WHERE event = :event",
        event=running,
    )
    (again,) = old(ready, "to be admitted again")
    execute(
        ready,
        "INSERT INTO unadmitted SELECT id, source, event_id, type, fingerprint, received_at,"
        " 'replay', now() FROM events WHERE id = :id",
        id=again,
    )
    (replayed,) = old(ready, "ended lately")
    end(ready, [replayed], NOW - days(1))
    (discarded,) = old(ready, "discarded", state="dead")
    execute(
        ready,
        "UPDATE jobs SET discarded_at = :at WHERE event = :id",
        at=NOW - days(40),
        id=discarded,
    )
    (lately,) = old(ready, "discarded lately", state="dead")
    execute(ready, "UPDATE jobs SET discarded_at = :at WHERE event = :id", at=NOW, id=lately)
    waiting = deliver_at(ready, "unadmitted", NOW - days(60))
    assert remove(ready, MONTH, NOW)["events"] == 2
    assert kept(ready) == {
        *("pending", "dead letter", "running", "to be admitted again"),
        *("ended lately", "discarded lately"),
    }
    assert one(ready, "SELECT count(*) FROM unadmitted WHERE delivery = :id", id=waiting) == 1


def test_unhandled_events_go_too_and_are_no_longer_counted(ready: Engine) -> None:
    made = [deliver_at(ready, f"a:{n}", NOW - days(60), type_="tag.added") for n in range(3)]
    admit(ready, made)
    assert remove(ready, MONTH, NOW) == Counter(events=3)
    assert one(ready, "SELECT count(*) FROM unhandled") == 0


def test_the_counts_are_of_what_is_kept(ready: Engine) -> None:
    old(ready, *[f"a:{n}" for n in range(5)])
    admit(ready, [deliver_at(ready, "a:1", NOW - days(50))])
    old(ready, "b", age=1)
    admit(ready, [deliver_at(ready, "c", NOW - days(60), type_="tag.added")])
    remove(ready, MONTH, NOW)
    with ready.connect() as connection:
        counted = totals.read(connection)
    assert (counted.events.total, counted.events.unhandled) == (1, 0)
    assert (counted.deliveries.accepted, counted.deliveries.duplicates) == (1, 0)
    assert counted.jobs.succeeded == 1


def test_a_late_duplicate_of_a_removed_event_is_a_duplicate(ready: Engine) -> None:
    (event,) = old(ready, "a")
    remove(ready, MONTH, NOW)
    same, other = deliver_at(ready, "a", NOW), deliver_at(ready, "a", NOW, content="other")
    admitted = admit(ready, [same, other])
    assert (admitted.duplicates, admitted.conflicts, admitted.unsettled) == (2, 1, 0)
    assert admitted.jobs == ()
    assert kept(ready) == set()
    assert rows(ready, "SELECT delivery, event, conflict FROM duplicates ORDER BY conflict") == [
        {"delivery": same, "event": event, "conflict": False},
        {"delivery": other, "event": event, "conflict": True},
    ]
    assert one(ready, "SELECT count(*) FROM unadmitted") == 0


def test_a_name_of_another_source_is_another_event(ready: Engine) -> None:
    old(ready, "a")
    remove(ready, MONTH, NOW)
    other = deliver_at(ready, "a", NOW)
    execute(ready, "UPDATE unadmitted SET source = 'other'")
    assert admit(ready, [other]).duplicates == 0
    assert kept(ready) == {"a"}


def test_duplicates_of_removed_events_go_at_their_own_age(ready: Engine) -> None:
    old(ready, "a")
    old(ready, "dead", state="dead")
    for age in (59, 31, 29):
        admit(ready, [deliver_at(ready, "a", NOW - days(age))])
    admit(ready, [deliver_at(ready, "dead", NOW - days(59))])
    assert remove(ready, MONTH, NOW) == Counter(events=1, jobs=1, duplicates=2)
    assert one(ready, "SELECT count(*) FROM duplicates") == 2
    assert remove(ready, MONTH, NOW + days(2)) == Counter(duplicates=1)


def test_the_memory_has_an_age_of_its_own(ready: Engine) -> None:
    old(ready, "a", "b", "c", "d", age=100)
    old(ready, "e", age=60)
    remove(ready, MONTH, NOW)
    ages = Ages(events=days(30), past_events=days(90))
    assert remove(ready, ages, NOW) == Counter(past_events=4)
    late = [deliver_at(ready, name, NOW) for name in ("a", "e")]
    assert admit(ready, late).duplicates == 1
    assert kept(ready) == {"a"}


def test_events_older_than_the_memory_go_without_a_trace(ready: Engine) -> None:
    old(ready, "a", age=100)
    ages = Ages(events=days(30), past_events=days(90))
    assert remove(ready, ages, NOW) == Counter(events=1, jobs=1)
    assert one(ready, "SELECT count(*) FROM past_events") == 0


def test_each_kind_has_an_age_of_its_own(ready: Engine) -> None:
    old(ready, "a")
    for age in (60, 29):
        at = {"at": NOW - days(age)}
        execute(
            ready,
            "INSERT INTO refusals VALUES ('bad_signature', :slot, :at, 's', '::1', '{}')",
            slot=age,
            **at,
        )
        execute(
            ready,
            "INSERT INTO refusal_counts VALUES (:at, 'bad_signature', '', '::1', 401, '', 1, :at,"
            " :at, gen_random_uuid())",
            **at,
        )
        execute(ready, "INSERT INTO activity VALUES (:at, 'answer', '', 0, 0, 1)", **at)
        execute(
            ready, "INSERT INTO actions (at, by, action, target) VALUES (:at, 'a', 'b', 'c')", **at
        )
        for status in ("finished", "cancelled", "failed", "paused"):
            execute(
                ready,
                "INSERT INTO replays (requested_by, selection, status, finished_at)"
                " VALUES ('a', '{}', :status, :at)",
                status=status,
                **at,
            )
    month = days(30)
    assert remove(ready, Ages(), NOW) == Counter()
    assert remove(ready, Ages(refusals=month), NOW) == Counter(refusals=2)
    assert remove(ready, Ages(activity=month), NOW) == Counter(activity=2)  # `a` too
    assert remove(ready, Ages(audit=month), NOW) == Counter(audit=3)
    assert kept(ready) == {"a"}
    statuses = Counter(row["status"] for row in rows(ready, "SELECT status FROM replays"))
    assert statuses == Counter(finished=1, cancelled=1, failed=2, paused=2)


def test_nothing_is_removed_while_a_replay_runs(ready: Engine) -> None:
    old(ready, "a")
    with ready.begin() as connection:
        number = replay.begin(connection, EventFilter(state="dead"), requested_by="me", reason=None)
        assert f"Replay {number} runs" in str(obstacles.find(connection))
    assert remove(ready, MONTH, NOW) == Counter()
    with ready.begin() as connection:
        replay.change_status(connection, number, "cancelled")
    assert remove(ready, MONTH, NOW)["events"] == 1


def test_nothing_is_removed_while_a_worker_does_not_know_the_memory(ready: Engine) -> None:
    old(ready, "a")
    worker = ProcessIdentity(id="h:1:a", kind="worker", host="h", pid=1, version="0")
    with ready.begin() as connection:
        heartbeats.upsert(connection, worker)
        assert obstacles.find(connection) is None
    execute(ready, "UPDATE processes SET remembers = false, seen_at = now() - interval '5 min'")
    assert remove(ready, MONTH, NOW) == Counter()
    with ready.begin() as connection:
        assert "h:1:a is of an older release" in str(obstacles.find(connection))
        heartbeats.remove(connection, worker)
    assert remove(ready, MONTH, NOW)["events"] == 1


def test_older_code_is_refused_its_start_a_minute_before_the_first_removal(engine: Engine) -> None:
    old(engine, "a")
    assert remove(engine, MONTH, NOW) == Counter()
    assert one(engine, "SELECT min(oldest_code) FROM revisions WHERE revision >= '0013'") == "0013"
    assert remove(engine, MONTH, NOW) == Counter()
    execute(engine, "UPDATE retention SET closed_at = now() - interval '61 s'")
    assert remove(engine, MONTH, NOW)["events"] == 1


def test_a_job_that_is_put_back_meanwhile_keeps_its_event(ready: Engine) -> None:
    """By code that does not hold off the removal."""
    (event,) = old(ready, "a")
    with ready.begin() as connection:
        execute(ready, "UPDATE jobs SET state = 'running', lease_until = now(), finished_at = NULL")
        assert jobs.remove(connection, [event], before=NOW) is None
    assert one(ready, "SELECT count(*) FROM jobs") == 1


def test_an_event_that_is_gone_is_said_to_be_gone(ready: Engine) -> None:
    (event,) = old(ready, "a")
    remove(ready, MONTH, NOW)
    with ready.connect() as connection:
        with pytest.raises(Exception, match="Retention may have removed it"):
            event_detail.of_event(connection, event)
        assert known_events.known(connection, "awalchat", ["a", "b"]) == {"a"}


def ingest(database_url: str, *arguments: str) -> str:
    """What a command prints, where events go after thirty days."""
    environment = {
        "INGEST_DATABASE_URL": database_url,
        "INGEST_BODY_RETENTION_DAYS": "7",
        "INGEST_EVENT_RETENTION_DAYS": "30",
    }
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "retention", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_rows_of_a_small_table_are_counted_whatever_is_estimated(
    engine: Engine, database_url: str
) -> None:
    execute(engine, "ANALYZE actions")
    for number in range(3):
        execute(engine, f"INSERT INTO actions (by, action, target) VALUES ('a', 'b', '{number}')")
    shown = json.loads(ingest(database_url, "--json"))
    assert {row["kind"]: row["rows"] for row in shown["kinds"]}["audit"] == 3


def test_the_command_shows_what_would_go_and_removes_it_at_once(
    engine: Engine, database_url: str
) -> None:
    old(engine, *[f"a:{n}" for n in range(5)])
    old(engine, "dead", state="dead")
    shown = json.loads(ingest(database_url, "--json"))
    by_kind = {row["kind"]: row for row in shown["kinds"]}
    assert (by_kind["events"]["age_days"], by_kind["events"]["rows"]) == (30, 6)
    assert by_kind["events"]["due"] == 5
    assert by_kind["events"]["bytes"] > 0
    assert by_kind["audit"]["age_days"] is None
    assert "refused its start" in shown["obstacle"]
    is_ready(engine)
    kind, age, held, _size, due, removed, _when = (
        ingest(database_url, "--run-now").splitlines()[0].split("\t")
    )
    assert (kind, age, held, due, removed) == ("events", "30 d", "1", "0", "5")
    assert kept(engine) == {"dead"}


def test_the_relay_removes_and_counts(ready: Engine, database_url: str) -> None:
    old(ready, *[f"a:{n}" for n in range(1_200)])
    engine = create_engine(parse(database_url), role=Role.RELAY)
    relay = Retention(engine, MONTH, stop=threading.Event(), clock=lambda: 5.0)
    relay.run_once()
    engine.dispose()
    samples = {(sample.metric.name, *sample.labels): sample.value for sample in relay.read()}
    assert samples["ingest_retention_removed_rows_total", "events"] == 1_200
    assert samples["ingest_retention_removed_rows_total", "audit"] == 0
    assert samples["ingest_retention_last_pass_timestamp_seconds",] == 5.0
    assert kept(ready) == set()


def test_a_relay_that_stops_leaves_the_rest_to_the_next_one(
    ready: Engine, database_url: str
) -> None:
    old(ready, *[f"a:{n}" for n in range(1_200)])
    engine = create_engine(parse(database_url), role=Role.RELAY)
    stop = threading.Event()
    stop.set()
    for _ in range(3):  # each remembers, or removes, one batch
        Retention(engine, MONTH, stop=stop, clock=lambda: 0.0).run_once()
    assert one(ready, "SELECT count(*) FROM events") == 200
    assert one(ready, "SELECT count(*) FROM past_events") == 1_200
    Retention(engine, MONTH, stop=threading.Event(), clock=lambda: 0.0).run_once()
    engine.dispose()
    assert kept(ready) == set()


def test_the_page_of_a_late_duplicate_says_that_its_event_is_gone(
    ready: Engine,
    database_url: str,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    first, late = deliver(database_url, [order(1)]), deliver(database_url, [order(1)])
    admit(ready, first)
    end(ready, first, NOW)
    remove(ready, Ages(events=days(1)), datetime.now(UTC) + days(2))
    assert admit(ready, late).duplicates == 1
    with running(app := create_app(make_settings())):
        browser = Browser(app=app)
        page = browser.get(f"/deliveries/{late[0]}")
        gone = browser.get(f"/events/{first[0]}")
        assert browser.get("/events").status == 200
    assert page.status == 200
    assert "Duplicate of a removed event" in page.text
    assert str(first[0]) in page.text
    assert gone.status == 404
    assert "Retention may have removed it" in gone.text


@dataclass
class Reference:
    """What should be there, in Python's own terms. The seed is the test's parameter."""

    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    past: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    admitted: int = 0
    duplicates: int = 0
    conflicts: int = 0

    def admit(self, name: str, content: str, at: datetime, state: str | None) -> None:
        first = self.kept[name]["content"] if name in self.kept else None
        if first is None and name in self.past:
            first = self.past[name][1]
        if first is None:
            self.kept[name] = {"content": content, "at": at, "ended": None, "state": state}
            self.admitted += 1
        else:
            self.duplicates += 1
            self.conflicts += content != first

    def remove(self, before: datetime, remember_since: datetime) -> None:
        for name, event in list(self.kept.items()):
            is_unhandled = event["state"] == "unhandled"
            ended = event["at"] if is_unhandled else event["ended"]
            if event["at"] < before and ended is not None and ended < before:
                del self.kept[name]
                if event["at"].date() >= remember_since.date():
                    self.past[name] = (event["at"], event["content"])
        self.past = {
            name: (at, content)
            for name, (at, content) in self.past.items()
            if at.date() >= remember_since.date()
        }


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_of_deliveries_duplicates_and_removals_agrees_with_a_reference(
    ready: Engine, seed: int
) -> None:
    chance, model, now = random.Random(seed), Reference(), NOW
    duplicates = conflicts = 0
    ids: dict[str, UUID] = {}
    for _ in range(40):
        now += timedelta(hours=chance.randint(1, 20))
        batch = []
        for _ in range(chance.randint(1, 5)):
            name, content = f"e:{chance.randint(0, 40)}", chance.choice("aaab")
            type_ = "order.created" if int(name[2:]) % 4 else "tag.added"
            made = deliver_at(ready, name, now, content=content, type_=type_, chance=chance)
            batch.append((made, name, content, None if type_ == "order.created" else "unhandled"))
        for made, name, content, unhandled in sorted(batch):
            if name not in model.kept and name not in model.past:
                ids[name] = made
            model.admit(name, content, now, unhandled)
        done = admit(ready, [made for made, *_ in chance.sample(batch, len(batch))])
        assert done.unsettled == 0
        duplicates, conflicts = duplicates + done.duplicates, conflicts + done.conflicts
        for name in chance.sample(sorted(model.kept), min(3, len(model.kept))):
            event = model.kept[name]
            if event["state"] is None:
                state = chance.choice(["succeeded", "succeeded", "dead"])
                end(ready, [ids[name]], now, state=state)
                event |= {"state": state, "ended": now if state == "succeeded" else None}
        if chance.random() < 0.4:
            age, memory = days(chance.randint(1, 6)), days(chance.randint(7, 20))
            ages = Ages(events=age, past_events=memory)
            remove(ready, ages, now, batch=chance.randint(1, 7))
            model.remove(now - age, now - memory)
        assert kept(ready) == set(model.kept)
        assert one(ready, "SELECT count(*) FROM past_events") == len(model.past)
    assert (duplicates, conflicts) == (model.duplicates, model.conflicts)
    removed = one(ready, "SELECT removed FROM retention WHERE kind = 'events'")
    assert removed + len(model.kept) == model.admitted
    assert removed > 20
    for table in ("events", "jobs", "duplicates", "unhandled"):
        counted = one(ready, "SELECT sum(rows) FROM totals WHERE counted = :table", table=table)
        assert (counted or 0) == one(ready, f"SELECT count(*) FROM {table}")
    assert one(ready, "SELECT count(*) FROM jobs WHERE event NOT IN (SELECT id FROM events)") == 0
