"""Every transition of a job, in any order, beside a model of it: the rows equal the model."""

from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, text

from ingest.errors import LeaseLost
from ingest.settings import load
from ingest.store.pipeline import admission, jobs, processors
from ingest.store.pipeline.jobs import Lease, Outcome
from ingest.store.pipeline.processors import Registered
from tests.integration.conftest import Sent
from tests.support.deliver import deliver, order
from tests.support.effort import examples
from tests.support.job_model import (
    ALL,
    ATTEMPTS,
    JOBS,
    LATER_S,
    PROCESSORS,
    ROWS,
    WITH_ATTEMPTS,
    WORKERS,
    Ending,
    Job,
    Row,
    as_row,
    check_columns,
    check_history,
    check_move,
    choices,
    chosen,
    endings,
    events_of,
    failures,
    some_processors,
    waits,
)
from tests.support.rows import execute, rows
from workers.relay import sweep
from workers.relay.sweep import Relay

_READMIT = """
    INSERT INTO unadmitted (delivery, source, event_id, type, fingerprint, received_at, queue,
                            hint_at, replay)
    SELECT id, source, event_id, type, fingerprint, received_at, 'replay', now(), :replay
    FROM events WHERE id = ANY(:ids)
"""
_TABLES = (
    "attempts",
    "jobs",
    "unhandled",
    "duplicates",
    "events",
    "unadmitted",
    "deliveries",
    "processors",
)
_PAUSED_JOBS_LIMIT = 3


def _registered(name: str) -> Registered:
    return Registered(
        name=name,
        types=(PROCESSORS[name].type,),
        queue=PROCESSORS[name].queue,
        batch=False,
        threads=1,
        max_attempts=PROCESSORS[name].max_attempts,
        timeout_s=30,
    )


class JobMachine(RuleBasedStateMachine):
    """Workers, stale and not, a relay, a rescuer and an operator, one step at a time."""

    engine: Engine
    url: str
    relay: Relay

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, Job] = {}
        self.events: dict[str, UUID] = {}
        self.held: list[Lease] = []
        """Every claim that was ever made; most are stale."""
        self.replays = 0
        self.before: dict[int, Row] = {}
        self.was_replay = False
        self.was_taken_back = False
        self.made_by: dict[int, int] = {}
        """By replays that had events admitted again: the last job that there was before."""
        self.paused: set[str] = set()
        self.put_aside: set[str] = set()
        """Processors that jobs were put aside of, and not yet all taken up."""
        with self.engine.begin() as db:
            for table in _TABLES:
                db.execute(text(f"DELETE FROM {table}"))
            processors.register(db, [_registered(name) for name in PROCESSORS])

    @initialize(names=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4))
    def begin(self, names: list[int]) -> None:
        self._admit(deliver(self.url, [order(n) for n in names]), names, sorted(PROCESSORS))

    @rule(
        names=st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3), given=some_processors
    )
    def admit(self, names: list[int], given: list[str]) -> None:
        self._admit(deliver(self.url, [order(n) for n in names]), names, given)

    def _admit(self, deliveries: list[UUID], names: Sequence[int], given: Sequence[str]) -> None:
        event_of, fresh = events_of(self.events, deliveries, [str(name) for name in names])
        with self.engine.begin() as db:
            admitted = self._admitted(db, deliveries, given)
            again = self._admitted(db, deliveries, given)
        assert (admitted.duplicates, admitted.conflicts, admitted.unsettled) == (
            len(event_of) - len(fresh),
            0,
            0,
        )
        assert (again.jobs, again.duplicates, again.unsettled) == ((), 0, 0)
        self._made(admitted, fresh, given, trigger="delivery", replay=None)

    @rule(choice=choices, given=some_processors)
    def admit_again(self, choice: int, given: list[str]) -> None:
        """As a replay does with events that lack a job."""
        named = chosen(sorted(self.events.values()), choice)
        self.replays += 1
        self.made_by[self.replays] = max(self.jobs, default=0)
        execute(self.engine, _READMIT, ids=named, replay=self.replays)
        with self.engine.begin() as db:
            admitted = self._admitted(db, named, given)
        assert (admitted.duplicates, admitted.unsettled) == (0, 0)
        self._made(admitted, set(named), given, trigger="replay", replay=self.replays)

    def _admitted(
        self, db: Connection, deliveries: Sequence[UUID], given: Sequence[str]
    ) -> admission.Admitted:
        return admission.admit(
            db,
            deliveries,
            [PROCESSORS[name] for name in given],
            replay_queue="replay",
            redispatch_after_s=LATER_S,
        )

    def _made(
        self,
        admitted: admission.Admitted,
        of: set[UUID],
        given: Sequence[str],
        *,
        trigger: str,
        replay: int | None,
    ) -> None:
        """Take over the ids of the jobs that must have been made, and of no other."""
        has = {(job.event, job.processor) for job in self.jobs.values()}
        lacks = {(event, name) for event in of for name in given} - has
        named = rows(
            self.engine,
            "SELECT id, event, processor FROM jobs WHERE id = ANY(:ids)",
            ids=[ref.id for ref in admitted.jobs],
        )
        assert {(row["event"], row["processor"]) for row in named} == lacks
        assert len(named) == len(admitted.jobs) == len(lacks)
        assert {ref.trigger for ref in admitted.jobs} <= {trigger}
        for row in named:
            processor = PROCESSORS[row["processor"]]
            self.jobs[row["id"]] = Job(
                event=row["event"],
                processor=row["processor"],
                queue="replay" if replay else processor.queue,
                trigger=trigger,
                max_attempts=processor.max_attempts,
                replay=replay,
                is_hinted=True,
            )

    @rule(choice=choices, worker=st.sampled_from(WORKERS), max_attempts=st.integers(1, 5))
    def claim(self, choice: int, worker: str, max_attempts: int) -> None:
        ids = chosen(sorted(self.jobs), choice)
        due = [id_ for id_ in ids if self.jobs[id_].is_claimable]
        expected = [id_ for id_ in due if self.jobs[id_].processor not in self.paused]
        with self.engine.begin() as db:
            claimable = jobs.due(db, ids)
            claimed = jobs.claim(db, ids, worker=worker, lease_s=LATER_S, max_attempts=max_attempts)
        assert [ref.id for ref in claimable] == due
        assert [each.id for each in claimed] == expected
        for each in claimed:
            job = self.jobs[each.id]
            job.claim(worker, max_attempts)
            assert (each.attempt, each.failures, each.trigger, each.event) == (
                job.attempt,
                job.failures,
                job.trigger,
                job.event,
            )
            assert each.body is not None
            self.held.append(Lease(id=each.id, attempt=each.attempt))

    def _claims(self, choice: int) -> list[Lease]:
        """Some claims, at most one a job, the newest not preferred."""
        found = {each.id: each for each in chosen(self.held, choice)}
        return list(found.values())

    def _ours(self, held: Sequence[Lease]) -> set[int]:
        return {each.id for each in held if self.jobs[each.id].is_held(each.attempt)}

    @precondition(lambda self: self.held)
    @rule(choice=choices)
    def renew(self, choice: int) -> None:
        held = self._claims(choice)
        with self.engine.begin() as db, self._leaving_alone(held):
            assert jobs.renew(db, held, lease_s=LATER_S) == self._ours(held)
        for id_ in self._ours(held):
            self.jobs[id_].is_leased = True

    @precondition(lambda self: self.held)
    @rule(choice=choices)
    def finish(self, choice: int) -> None:
        """All that a worker holds, in one transaction; with one stale claim none of it."""
        held = self._claims(choice)
        ours = self._ours(held)
        lost = {each.id for each in held} - ours
        if lost:
            with pytest.raises(LeaseLost) as caught, self.engine.begin() as db:
                jobs.finish(db, held)
            assert caught.value.job_ids == lost
            return
        with self.engine.begin() as db:
            jobs.finish(db, held)
        for id_ in ours:
            self.jobs[id_].finish()

    @precondition(lambda self: self.held)
    @rule(choice=choices)
    def finish_what_is_still_ours(self, choice: int) -> None:
        held = [each for each in self._claims(choice) if each.id in self._ours([each])]
        with self.engine.begin() as db:
            jobs.finish(db, held)
        for each in held:
            self.jobs[each.id].finish()

    @precondition(lambda self: self.held)
    @rule(choice=choices, ending=endings)
    def fail(self, choice: int, ending: Ending) -> None:
        self._fail(self._claims(choice), ending)

    def _fail(self, held: Sequence[Lease], ending: Ending) -> None:
        ours = self._ours(held)
        with self.engine.begin() as db, self._leaving_alone(held):
            assert jobs.fail(db, failures(held, ending)) == ours
        self._failed(ours, ending)

    def _failed(self, ids: set[int], ending: Ending) -> None:
        outcome, retry_in_s, rescued = ending
        for id_ in ids:
            self.jobs[id_].fail(str(outcome), retry_in_s, rescued=rescued)

    @precondition(lambda self: self._is_held)
    @rule(choice=choices, by=st.sampled_from(WORKERS))
    def another_worker_takes_over(self, choice: int, by: str) -> None:
        """What leaves a stale claim of a job that runs; seldom come upon by chance."""
        self.leases_end(choice)
        self.rescue_after_leases((Outcome.RELEASED, 0.0, True), limit=100)
        self.claim(ALL, by, max_attempts=3)

    @precondition(lambda self: self._overtaken())
    @rule(choice=choices, ending=endings)
    def a_stale_worker_wakes_up(self, choice: int, ending: Ending) -> None:
        """Nothing that it does changes anything, though another runs the same job."""
        stale = {each.id: each for each in chosen(self._overtaken(), choice)}
        held = list(stale.values()) or self._overtaken()[:1]
        with self._leaving_alone(held):
            with self.engine.begin() as db:
                assert jobs.renew(db, held, lease_s=1.0) == set()
                assert jobs.fail(db, failures(held, ending)) == set()
            with pytest.raises(LeaseLost) as caught, self.engine.begin() as db:
                jobs.finish(db, held)
        assert caught.value.job_ids == {each.id for each in held}

    @property
    def _is_held(self) -> bool:
        return any(job.state == "running" for job in self.jobs.values())

    def _overtaken(self) -> list[Lease]:
        """Stale claims of jobs that run."""
        running = {id_: job.attempt for id_, job in self.jobs.items() if job.state == "running"}
        return [each for each in self.held if each.attempt < running.get(each.id, 0)]

    @rule(choice=choices)
    def leases_end(self, choice: int) -> None:
        running = [id_ for id_, job in self.jobs.items() if job.state == "running"]
        named = chosen(running, choice)
        execute(
            self.engine,
            "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = ANY(:ids)",
            ids=named,
        )
        for id_ in named:
            self.jobs[id_].is_leased = False

    @rule(ending=endings, limit=st.integers(1, 10))
    def rescue_after_leases(self, ending: Ending, limit: int) -> None:
        expected = {id_ for id_, job in self.jobs.items() if job.is_expired}
        with self.engine.begin() as db:
            found = jobs.expired(db, limit=limit)
            self._check_orphans(found)
            held = [Lease(id=each.id, attempt=each.attempt) for each in found]
            jobs.fail(db, failures(held, ending))
        named = {each.id for each in found}
        assert named <= expected
        assert len(named) == min(limit, len(expected))
        self._failed(named, ending)

    @rule(ending=endings, worker=st.sampled_from(WORKERS))
    def rescue_after_a_wreck(self, ending: Ending, worker: str) -> None:
        with self.engine.begin() as db:
            found = jobs.held_by(db, worker)
            self._check_orphans(found)
            held = [Lease(id=each.id, attempt=each.attempt) for each in found]
            jobs.fail(db, failures(held, ending))
        expected = {
            id_ for id_, job in self.jobs.items() if job.state == "running" and job.worker == worker
        }
        assert {each.id for each in found} == expected
        self._failed(expected, ending)

    def _check_orphans(self, found: Sequence[jobs.AbandonedJob]) -> None:
        for each in found:
            job = self.jobs[each.id]
            assert (each.attempt, each.failures, each.max_attempts, each.trigger) == (
                job.attempt,
                job.failures,
                job.max_attempts,
                job.trigger,
            )

    @rule(choice=choices, delay_s=waits)
    def requeue(self, choice: int, delay_s: float) -> None:
        ids = chosen(sorted(self.jobs), choice)
        running = {id_ for id_ in ids if self.jobs[id_].state == "running"}
        self.replays += 1
        with self.engine.begin() as db:
            found = jobs.requeue(
                db, ids, replay=self.replays, queue="replay", delays_s=[delay_s] * len(ids)
            )
        assert set(found.job_ids) == set(ids) - running
        assert found.running == len(running)
        for id_ in found.job_ids:
            self.jobs[id_].requeue(self.replays, "replay", delay_s)
        self.was_replay = True

    @precondition(lambda self: self.replays)
    @rule(choice=choices, limit=st.integers(1, 10))
    def take_back(self, choice: int, limit: int) -> None:
        """Of the replays that are chosen, what no worker has had since."""
        for replay in chosen(range(1, self.replays + 1), choice)[-3:]:
            expected = {
                id_
                for id_, job in self.jobs.items()
                if job.replay == replay and job.waits_for_a_replay
            }
            with self.engine.begin() as db:
                found = {one.job for one in jobs.take_back(db, replay, limit=limit)}
            assert found <= expected
            assert len(found) == min(limit, len(expected))
            for id_ in found:
                self.jobs[id_].take_back()
            self.was_taken_back = True

    @precondition(lambda self: self.made_by)
    @rule(choice=choices, limit=st.integers(1, 10))
    def unmake(self, choice: int, limit: int) -> None:
        """Jobs that a replay made for events that lacked them are gone, if nobody has had them."""
        for replay, made_after in chosen(sorted(self.made_by.items()), choice):
            expected = {
                id_
                for id_, job in self.jobs.items()
                if job.replay == replay
                and id_ > made_after
                and (job.state, job.attempt, job.before) == ("pending", 0, None)
            }
            with self.engine.begin() as db:
                removed = jobs.unmake(db, replay, made_after=made_after, limit=limit)
            assert {one.job for one in removed} <= expected
            assert len(removed) == min(limit, len(expected))
            for one in removed:
                assert self.jobs.pop(one.job).event == one.event
            self.held = [each for each in self.held if each.id in self.jobs]
            self.before = {id_: row for id_, row in self.before.items() if id_ in self.jobs}

    @invariant()
    def an_event_without_a_job_is_unhandled(self) -> None:
        unhandled = {row["event"] for row in rows(self.engine, "SELECT event FROM unhandled")}
        assert unhandled == set(self.events.values()) - {job.event for job in self.jobs.values()}

    @rule(queue=st.sampled_from(["events", "slow", "replay"]), limit=st.integers(1, 10))
    def dispatch_due(self, queue: str, limit: int) -> None:
        expected = {
            id_
            for id_, job in self.jobs.items()
            if job.queue == queue and job.is_unhinted and job.processor not in self.paused
        }
        with self.engine.begin() as db:
            found = jobs.dispatch_due(db, queue, limit=limit, ttl_s=LATER_S)
            waiting = jobs.queues(db)
        assert set(found) <= expected
        assert len(found) == len(set(found)) == min(limit, len(expected))
        assert waiting == sorted({job.queue for job in self.jobs.values() if job.waits})
        for id_ in found:
            self.jobs[id_].is_hinted = True

    @rule(choice=choices)
    def undo_dispatch(self, choice: int) -> None:
        ids = chosen(sorted(self.jobs), choice)
        with self.engine.begin() as db:
            jobs.undo_dispatch(db, ids)
        for id_ in ids:
            self.jobs[id_].is_hinted = self.jobs[id_].is_parked = False

    @rule(choice=choices)
    def time_passes(self, choice: int) -> None:
        waiting = [id_ for id_, job in self.jobs.items() if job.waits]
        named = chosen(waiting, choice)
        execute(
            self.engine,
            "UPDATE jobs SET next_attempt_at = now() - interval '1 s',"
            " hinted_until = CASE WHEN hinted_until < 'infinity' THEN now() - interval '1 s'"
            " ELSE hinted_until END WHERE id = ANY(:ids)",
            ids=named,
        )
        for id_ in named:
            self.jobs[id_].is_due, self.jobs[id_].is_hinted = True, False

    @rule(choice=choices, named=st.booleans())
    def discard(self, choice: int, named: bool) -> None:
        ids = chosen(sorted(self.jobs), choice)
        expected = [id_ for id_ in ids if self.jobs[id_].is_discardable]
        self.replays += named
        replay = self.replays if named else None
        with self.engine.begin() as db:
            assert jobs.discard(db, ids, replay=replay, why="no") == len(expected)
        for id_ in expected:
            self.jobs[id_].discard(replay)

    @rule(choice=choices)
    def run_now(self, choice: int) -> None:
        ids = chosen(sorted(self.jobs), choice)
        expected = [id_ for id_ in ids if self.jobs[id_].waits]
        with self.engine.begin() as db:
            assert jobs.run_now(db, ids) == len(expected)
        for id_ in expected:
            self.jobs[id_].run_now()

    @rule(names=some_processors, sweeps=st.integers(0, 2))
    def pause_none_but(self, names: list[str], sweeps: int) -> None:
        """An operator pauses and resumes, and the relay looks so often."""
        with self.engine.begin() as db:
            for name in PROCESSORS:
                if name in names:
                    processors.pause(db, name, by="sara", reason=None)
                else:
                    processors.resume(db, name)
        self.paused = set(names)
        for _ in range(sweeps):
            self._set_aside()

    def _set_aside(self) -> None:
        """Jobs of paused processors among those that are due longest, and as many back."""
        resumed = self.put_aside - self.paused
        assert self._to_set_aside() == (sorted(self.paused), sorted(resumed))
        due = self._by_queue(lambda job: job.is_unhinted)
        to_unpark = self._by_queue(lambda job: job.is_parked and job.processor in resumed)
        before = self._parked()
        self.relay.park_paused()
        after = self._parked()
        parked, unparked = after - before, before - after
        for those in due.values():
            to_park = {id_ for id_ in those if self.jobs[id_].processor in self.paused}
            assert parked & those <= to_park
            assert len(those) > _PAUSED_JOBS_LIMIT or parked & those == to_park
        for those in to_unpark.values():
            assert len(unparked & those) == min(len(those), _PAUSED_JOBS_LIMIT)
        assert parked <= set().union(*due.values())
        assert unparked <= set().union(*to_unpark.values())
        for id_ in parked | unparked:
            self.jobs[id_].is_parked = id_ in parked
        if not unparked:
            self.put_aside &= self.paused
        self.put_aside |= {self.jobs[id_].processor for id_ in parked}

    def _by_queue(self, meant: Callable[[Job], bool]) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for id_, job in self.jobs.items():
            if meant(job):
                found.setdefault(job.queue, set()).add(id_)
        return found

    def _parked(self) -> set[int]:
        return {row["id"] for row in rows(self.engine, JOBS) if row["is_parked"]}

    def _to_set_aside(self) -> tuple[list[str], list[str]]:
        with self.engine.begin() as db:
            return processors.pause_changes(db)

    def teardown(self) -> None:
        """Whatever came before: once nobody is paused, within some sweeps nothing is aside."""
        self.pause_none_but([], sweeps=len(self.jobs) + 1)
        assert self._to_set_aside() == ([], [])
        assert self._parked() == set()

    def _leaving_alone(self, held: Sequence[Lease]) -> "_Untouched":
        """A block in which the rows of stale claims do not change in any column."""
        ours = self._ours(held)
        return _Untouched(self.engine, [each.id for each in held if each.id not in ours])

    @invariant()
    def the_rows_equal_the_model(self) -> None:
        found = {row.pop("id"): row for row in rows(self.engine, JOBS)}
        assert found == {id_: as_row(job) for id_, job in self.jobs.items()}
        told = {(row.pop("job"), row.pop("number")): row for row in rows(self.engine, ATTEMPTS)}
        assert told == {
            (id_, number): vars(attempt)
            for id_, job in self.jobs.items()
            for number, attempt in job.ended.items()
        }

    @invariant()
    def what_holds_of_every_job_holds(self) -> None:
        """Said of the rows alone, in case the model shares a mistake with the statements."""
        now = {row["job"]["id"]: row["job"] for row in rows(self.engine, ROWS)}
        told = rows(self.engine, "SELECT job, number FROM attempts ORDER BY job, number")
        for id_, row in now.items():
            check_columns(row)
            check_history(row, [each["number"] for each in told if each["job"] == id_])
            if id_ in self.before:
                check_move(
                    self.before[id_],
                    row,
                    by_replay=self.was_replay,
                    by_taking_back=self.was_taken_back,
                )
        self.before, self.was_replay, self.was_taken_back = now, False, False


class _Untouched:
    """Rows that are the same after the block as before it."""

    def __init__(self, engine: Engine, ids: Sequence[int]) -> None:
        self._engine = engine
        self._ids = list(ids)

    def __enter__(self) -> None:
        self._before = self._read()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert kind is not None or self._read() == self._before

    def _read(self) -> list[Row]:
        return rows(self._engine, WITH_ATTEMPTS, ids=self._ids)


@pytest.fixture
def machine(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[JobMachine]]:
    monkeypatch.setattr(sweep, "_PAUSED_JOBS_LIMIT", _PAUSED_JOBS_LIMIT)
    JobMachine.engine, JobMachine.url = engine, database_url
    JobMachine.relay = Relay(engine, Sent(), load())
    yield JobMachine
    del JobMachine.engine, JobMachine.url, JobMachine.relay


def test_jobs_move_as_the_model_says_whoever_calls_what_when(machine: type[JobMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(30),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
