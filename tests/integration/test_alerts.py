"""Each rule fires on its fault, is told, and recovers; several relays tell it once."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from ingest.alerts import configuration, facts, notices
from ingest.alerts.catalogue import NO_PROCESS, RULES
from ingest.alerts.channels import send as sending
from ingest.alerts.channels.base import ChannelFailed, Envelope
from ingest.alerts.configuration import Configuration, Slack
from ingest.alerts.delivery import Delivery
from ingest.alerts.evaluation import Evaluation
from ingest.alerts.facts import Facts, Surroundings
from ingest.errors import NotFound
from ingest.redis_address import parse_redis
from ingest.settings import Settings
from ingest.store import alerts, partitions
from ingest.store.address import parse
from ingest.store.alerts import Alert
from ingest.store.engine import Role, create_engine
from ingest.store.reports import gauges
from ingest.store.server_time import server_time
from tests.support.deliver import deliver, order
from tests.support.ports import free_port
from tests.support.rows import execute, one, rows
from tests.support.waiting import until

DEFAULTS = configuration.read(None)
CHANNELS = {"team": Slack(kind="slack", url_env="SLACK_URL")}
KEYS = {"shop": ("new1", "old1")}
_SIZE = replace(DEFAULTS.policies["database_large"], enabled=True, thresholds={"bytes": 1})


@dataclass
class Pipeline:
    """A pipeline whose rules are evaluated when the test says, by a clock that the test moves."""

    database_url: str
    engine: Engine
    relay: Engine
    settings: Settings
    configuration: Configuration
    kind: str = "console"
    """Of the process that evaluates."""
    around: Any = None
    """Settings instead of its own."""
    ahead: timedelta = timedelta()
    keys: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"shop": ("new1",)})
    changes: dict[str, Any] = field(default_factory=dict)
    """What the facts say instead of what is so."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def facts(self, connection: Connection, asked: Configuration, around: Surroundings) -> Facts:
        seen = facts.read(connection, asked, around)
        return replace(seen, now=seen.now + self.ahead, **self.changes)

    def evaluation(self, by: str = "here") -> Evaluation:
        around = Surroundings(
            settings=self.around or self.settings,
            kind=self.kind,
            configured_keys=lambda: self.keys,
        )
        return Evaluation(
            self.relay,
            self.configuration,
            around,
            by=by,
            random=os.urandom,
            read=self.facts,
        )

    def evaluate(self, later_s: float = 0) -> None:
        """Evaluate after so many seconds more."""
        self.ahead += timedelta(seconds=later_s)
        assert self.evaluation(f"process {next(self.numbers)}").run_if_due(every_s=0)

    def firing(self) -> dict[str, Alert]:
        """The alerts that have fired and not recovered, by rule."""
        with self.engine.connect() as connection:
            listed = alerts.newest(connection, recovered=False)
        return {alert.rule: alert for alert in listed}

    def fires(self, alert: Alert) -> bool:
        """Whether this alert, and not another of its rule, has not ended."""
        with self.engine.connect() as connection:
            listed = alerts.newest(connection, recovered=False)
        return alert.id in {firing.id for firing in listed}

    def titles(self) -> list[str]:
        """The titles of all messages."""
        found = rows(
            self.engine, "SELECT content->>'title' AS title FROM alert_messages ORDER BY number"
        )
        return [row["title"] for row in found]

    def count(self, what: str, label: str, times: int, *, ago: timedelta = timedelta()) -> None:
        """Count something, some time ago."""
        execute(
            self.engine,
            "INSERT INTO activity (minute, what, label, bucket, slot, count)"
            " VALUES (date_trunc('minute', now() - CAST(:ago AS interval)), :what, :label, 0, 0,"
            " :times)",
            ago=ago,
            what=what,
            label=label,
            times=times,
        )

    def forget(self) -> None:
        """Forget all counts."""
        execute(self.engine, "DELETE FROM activity")

    def process(self, kind: str, lacks: str = "{}") -> None:
        """A process that is alive for the whole test."""
        execute(
            self.engine,
            "INSERT INTO processes (id, kind, host, pid, version, started_at, seen_at, lacks)"
            " VALUES (:kind, :kind, 'h', 1, '1', now() - interval '1 hour',"
            " now() + interval '1 hour', :lacks)"
            " ON CONFLICT (id) DO UPDATE SET lacks = excluded.lacks",
            kind=kind,
            lacks=lacks,
        )

    def job(self, state: str) -> None:
        """A job of the processor crm in a state."""
        deliver(self.database_url, [order(1)])
        execute(self.engine, JOB, state=state)


JOB = """
    INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures, max_attempts,
                      next_attempt_at, hinted_until, finished_at)
    SELECT delivery, 'crm', 'events',
           CASE CAST(:state AS text) WHEN 'dead' THEN 'dead' ELSE 'pending' END, 'delivery',
           0, 0, 8,
           CASE WHEN :state <> 'dead' THEN now() END,
           CASE WHEN :state = 'parked' THEN CAST('infinity' AS timestamptz) END,
           CASE WHEN :state = 'dead' THEN now() END
    FROM unadmitted WHERE delivery NOT IN (SELECT event FROM jobs)
"""


@pytest.fixture
def pipeline(engine: Engine, database_url: str, make_settings: Any) -> Iterator[Pipeline]:
    """A pipeline on which nothing is wrong."""
    relay = create_engine(parse(database_url), role=Role.RELAY, pool_size=4)
    found = Pipeline(
        database_url, engine, relay, make_settings(), replace(DEFAULTS, channels=CHANNELS)
    )
    with engine.begin() as connection:
        today = server_time(connection).date()
        partitions.ensure(connection, today=today, days_ahead=5)
    for kind in NO_PROCESS:
        found.process(kind)
    yield found
    relay.dispose()


Act = Callable[[Pipeline], None]


def sql(statements: str) -> Act:
    """What runs statements."""
    return lambda pipeline: execute(pipeline.engine, statements)


def past_days(pipeline: Pipeline) -> None:
    """The source shop was busy on each of the days before, in the clock hour that counts now and in
    the next, which may have begun when the rule is evaluated."""
    for days, hours in itertools.product(range(1, 8), range(2)):
        ago = timedelta(days=days, hours=-hours, minutes=15)
        pipeline.count("key", "shop new1", 30, ago=ago)


def nothing_counted(pipeline: Pipeline) -> None:
    pipeline.forget()


def only_counted(what: str, label: str) -> Act:
    """What forgets all counts and makes one."""
    return both(nothing_counted, lambda pipeline: pipeline.count(what, label, 1))


def say(**changes: Any) -> Act:
    """What lets the facts say something."""
    return lambda pipeline: pipeline.changes.update(changes)


def both(*acts: Act) -> Act:
    def act(pipeline: Pipeline) -> None:
        for each in acts:
            each(pipeline)

    return act


def limit_of(size: float) -> Act:
    """What sets the size that the database may have."""

    def act(pipeline: Pipeline) -> None:
        policies = dict(DEFAULTS.policies) | {
            "database_large": replace(_SIZE, thresholds={"bytes": size})
        }
        pipeline.configuration = replace(pipeline.configuration, policies=policies)

    return act


class NoRedis:
    """Settings with a Redis that is away."""

    def __init__(self, settings: Settings) -> None:
        self.redis = parse_redis(f"redis://127.0.0.1:{free_port()}")
        self.data, self.database = settings.data, settings.database


def redis_goes(pipeline: Pipeline) -> None:
    pipeline.around = NoRedis(pipeline.settings)


def redis_returns(pipeline: Pipeline) -> None:
    pipeline.around = pipeline.settings


def later(seconds: float) -> Act:
    def act(pipeline: Pipeline) -> None:
        pipeline.ahead += timedelta(seconds=seconds)

    return act


_SLOW = both(lambda p: p.job("pending"), sql("DELETE FROM unadmitted"), later(4000))
_NO_JOBS = sql("DELETE FROM jobs")
_PARKED = "INSERT INTO parked (processor, queue, reason) VALUES ('crm', 'events', 'unknown')"
_PAUSED = (
    "INSERT INTO processors (name, types, queue, batch, threads, max_attempts, timeout_s,"
    " registered_at, paused_at, parked) VALUES ('crm', '[]', 'events', false, 1, 8, 30, now(),"
    " now(), true)"
)
_RESUMED = "UPDATE processors SET paused_at = NULL, parked = false"
_STUCK = (
    "INSERT INTO alert_messages (id, channel, content, made_at, next_at, attempts) VALUES"
    " (gen_random_uuid(), 'pager', '{\"title\": \"stuck\"}', now() - interval '20 min', now(), 3)"
)


def full_disk(free_share: float) -> Act:
    disk = facts.Disk(free_bytes=2**40, free_share=free_share)
    return say(disks={"/data": disk}, host="here")


CASES: dict[str, tuple[Act, Act, str]] = {
    **{
        f"no_{kind}": (
            sql(f"DELETE FROM processes WHERE kind = '{kind}'"),
            lambda pipeline, kind=kind: pipeline.process(kind),  # type: ignore[misc]
            f"No {kind} is alive",
        )
        for kind in NO_PROCESS
    },
    "privileges_missing": (
        lambda pipeline: pipeline.process("relay", "{lacks UPDATE on ingest.jobs}"),
        lambda pipeline: pipeline.process("relay"),
        "The database role of the relays lacks UPDATE on ingest.jobs.",
    ),
    "backlog_old": (
        both(
            lambda pipeline: pipeline.job("pending"),
            sql("UPDATE unadmitted SET received_at = now() - interval '3 min'"),
            _NO_JOBS,
        ),
        sql("DELETE FROM unadmitted"),
        "The oldest delivery that no worker has admitted is 4 min old; waiting: 1 delivery.",
    ),
    "jobs_old": (_SLOW, _NO_JOBS, "A job of crm in events is unfinished 71 min after"),
    "schedule_overdue": (
        both(
            sql(
                "INSERT INTO processors (name, types, queue, batch, threads, max_attempts,"
                " timeout_s, registered_at) VALUES ('crm', '[]', 'events', false, 1, 8, 30, now())"
                " ON CONFLICT DO NOTHING"
            ),
            sql(
                "INSERT INTO schedules (processor, expression, zone, missed, overlap, next_due_at)"
                " VALUES ('crm', '0 * * * *', 'UTC', 'latest', false, now() - interval '20 min')"
            ),
            sql("UPDATE processes SET processors = '{crm}' WHERE kind = 'worker'"),
        ),
        sql("UPDATE schedules SET next_due_at = now() + interval '1 h'"),
        "crm was due 21 min ago, and no run has begun since.",
    ),
    "processor_fails": (
        both(
            lambda pipeline: pipeline.count("failed", "crm", 30),
            lambda pipeline: pipeline.count("succeeded", "crm", 70),
        ),
        only_counted("succeeded", "crm"),
        "crm fails: 30 of its 100 attempts of the last 10 min",
    ),
    "dead_letters": (
        both(lambda pipeline: pipeline.job("dead"), sql("DELETE FROM unadmitted")),
        sql("UPDATE jobs SET discarded_at = now()"),
        "crm has 1 dead letter",
    ),
    "dead_letters_many": (
        both(
            lambda pipeline: pipeline.job("dead"),
            sql("DELETE FROM unadmitted"),
            sql(
                "INSERT INTO jobs (event, processor, queue, state, trigger, attempt, failures,"
                " max_attempts, finished_at) SELECT event, 'p' || n, 'events', 'dead', 'delivery',"
                " 0, 0, 8, now() FROM jobs, generate_series(1, 100) AS n"
            ),
        ),
        sql("UPDATE jobs SET discarded_at = now()"),
        "To be replayed or discarded: 101 dead letters.",
    ),
    "failure_back": (
        sql(
            "INSERT INTO failure_groups (processor, error_type, place, first_seen, last_seen,"
            " attempts, job, number, resolved_at, reopened_at) VALUES ('crm', 'KeyError', 'a:b',"
            " now(), now(), 2, 1, 1, now(), now())"
        ),
        sql("UPDATE failure_groups SET state = 'acknowledged'"),
        "failure 1 (KeyError of crm) is back: it was resolved, and has failed again.",
    ),
    "jobs_parked": (
        both(lambda pipeline: pipeline.job("parked"), sql(f"DELETE FROM unadmitted; {_PARKED}")),
        sql("DELETE FROM jobs; DELETE FROM parked"),
        "Parked: 1 job of crm in events, no live worker has it.",
    ),
    "processor_paused": (
        both(lambda pipeline: pipeline.job("parked"), sql(f"DELETE FROM unadmitted; {_PAUSED}")),
        sql(_RESUMED),
        "crm is paused: its jobs wait",
    ),
    "breaker_open": (
        sql(
            "INSERT INTO breakers (processor, watches, opens_after, probe_every_s, failures,"
            " error_type, opened_at, probe_at) VALUES ('crm', 'ConnectionError', 10, 30, 12,"
            " 'ConnectError', '2026-11-29 03:07+00', now())"
        ),
        sql("UPDATE breakers SET opened_at = NULL"),
        (
            "The target of crm is down, and its jobs wait: its breaker is open since 03:07 UTC,"
            " after 12 failures in a row (ConnectError)."
        ),
    ),
    "possible_losses": (
        lambda pipeline: pipeline.count("possible_loss", "github", 3),
        sql(
            "INSERT INTO actions (at, by, action, target)"
            " VALUES (now() + interval '2 min', 'me', 'recover', 'github')"
        ),
        "3 deliveries from",
    ),
    "signatures_refused": (
        both(
            lambda pipeline: pipeline.count("refused", "signature_mismatch", 12),
            lambda pipeline: pipeline.count("answer", "", 88),
        ),
        only_counted("answer", ""),
        "12 requests were refused in the last 10 min for a wrong signature, of 100",
    ),
    "source_quiet": (
        past_days,
        lambda pipeline: pipeline.count("key", "shop new1", 1),
        "Nothing has come from shop for 30 min. On 7 of the last 7 days",
    ),
    "old_key_used": (
        both(
            lambda pipeline: pipeline.count("key", "shop old1", 5),
            lambda pipeline: setattr(pipeline, "keys", KEYS),
        ),
        only_counted("key", "shop new1"),
        "shop still signs with its older key old1: 5 deliveries in the last 60 min",
    ),
    "partitions_short": (
        say(partition_days=2),
        lambda pipeline: pipeline.changes.clear(),
        "Only 2 days after today have a partition",
    ),
    "disk_low": (full_disk(0.05), full_disk(0.5), "here:/data has 1,024.0 GiB left, 5%"),
    "database_large": (limit_of(1), limit_of(10**15), "The database has "),
    "redis_away": (redis_goes, redis_returns, "Redis does not answer"),
    "channel_fails": (
        sql(_STUCK),
        sql("UPDATE alert_messages SET next_at = NULL, sent_at = now() WHERE channel = 'pager'"),
        "The channel pager takes no messages; the oldest has waited for 20 min",
    ),
}


def test_each_rule_has_a_case() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("slug", RULES)
def test_a_rule_fires_on_its_fault_and_recovers(slug: str, pipeline: Pipeline) -> None:
    breaks, mends, sentence = CASES[slug]
    policy = pipeline.configuration.policies[slug]
    pipeline.evaluate()
    assert not pipeline.firing()
    breaks(pipeline)
    pipeline.evaluate()
    assert (slug in pipeline.firing()) is (policy.for_s == 0)
    pipeline.evaluate(policy.for_s)
    fired = pipeline.firing()[slug]
    assert fired.sentence.startswith(sentence)
    assert [title for title in pipeline.titles() if title == f"Alert: {fired.sentence}"]
    mends(pipeline)
    pipeline.evaluate(1)
    assert (slug in pipeline.firing()) is (policy.recover_for_s > 0)
    pipeline.evaluate(policy.recover_for_s)
    assert slug not in pipeline.firing()
    recovered = RULES[slug].recovered.format(subject=fired.subject)
    assert f"Recovered: {recovered}" in pipeline.titles()


def fire(slug: str, pipeline: Pipeline) -> Alert:
    """Let a rule fire on its fault, and return the alert."""
    CASES[slug][0](pipeline)
    pipeline.evaluate()
    pipeline.evaluate(RULES[slug].for_s)
    return pipeline.firing()[slug]


def recoveries(pipeline: Pipeline) -> list[str]:
    """The titles of the messages that tell a recovery."""
    return [title for title in pipeline.titles() if title.startswith("Recovered")]


def use_pager(pipeline: Pipeline) -> None:
    """The channel pager is configured, and is told nothing of what these tests break."""
    pager = Slack(kind="slack", url_env="PAGER_URL", rules=("redis_away",))
    channels = CHANNELS | {"pager": pager}
    pipeline.configuration = replace(pipeline.configuration, channels=channels)


_GIVEN_UP = "UPDATE alert_messages SET next_at = NULL WHERE channel = 'pager'"
_PARKED_NOW = f"UPDATE jobs SET hinted_until = 'infinity'; {_PARKED}"
_LONG_PAST = "UPDATE activity SET minute = minute - interval '4 days'"
UNKNOWN: dict[str, Act] = {
    "privileges_missing": sql("DELETE FROM processes WHERE kind = 'relay'"),
    "jobs_old": sql(_PARKED_NOW),
    "schedule_overdue": sql("UPDATE processors SET paused_at = now()"),
    "processor_fails": nothing_counted,
    "jobs_parked": sql(f"DELETE FROM parked; {_PAUSED}"),
    "processor_paused": sql("DELETE FROM jobs"),
    "possible_losses": sql(_LONG_PAST),
    "signatures_refused": nothing_counted,
    "source_quiet": say(past_hours=()),
    "old_key_used": nothing_counted,
    "disk_low": say(disks={}, host="elsewhere"),
    "channel_fails": both(use_pager, sql(_GIVEN_UP)),
}
"""What hides the fault of a rule and does not mend it."""


@pytest.mark.parametrize("slug", UNKNOWN)
def test_an_alert_of_which_nothing_is_known_stays_and_ends_without_a_recovery(
    slug: str, pipeline: Pipeline
) -> None:
    alert = fire(slug, pipeline)
    UNKNOWN[slug](pipeline)
    pipeline.evaluate(1)
    pipeline.evaluate(RULES[slug].recover_for_s)
    pipeline.evaluate(RULES[slug].unknown_for_s / 2)
    assert pipeline.fires(alert)
    pipeline.evaluate(RULES[slug].unknown_for_s / 2)
    assert not pipeline.fires(alert)
    assert not recoveries(pipeline)


_STARTED_NOW = "UPDATE processes SET started_at = now() + interval '1 hour'"


def test_a_pipeline_that_starts_is_given_time_for_all_its_processes(pipeline: Pipeline) -> None:
    """The console of a first `ingest up` said in red that no worker is alive."""
    execute(pipeline.engine, f"DELETE FROM processes WHERE kind = 'worker'; {_STARTED_NOW}")
    pipeline.evaluate()
    assert rows(pipeline.engine, "SELECT rule FROM alerts") == []
    execute(pipeline.engine, "UPDATE processes SET started_at = now() - interval '21 s'")
    pipeline.evaluate()
    assert [row["rule"] for row in rows(pipeline.engine, "SELECT rule FROM alerts")] == [
        "no_worker"
    ]


def test_processes_that_start_anew_without_a_worker_are_no_recovery(pipeline: Pipeline) -> None:
    alert = fire("no_worker", pipeline)
    execute(pipeline.engine, _STARTED_NOW)
    pipeline.evaluate()
    assert pipeline.fires(alert)
    assert not recoveries(pipeline)


def test_an_old_job_behind_more_than_are_looked_at_is_no_recovery(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert = fire("jobs_old", pipeline)
    monkeypatch.setattr(gauges, "EXAMINED", 1)
    execute(pipeline.engine, "UPDATE jobs SET next_attempt_at = now() + interval '1 min'")
    pipeline.job("pending")
    execute(pipeline.engine, "UPDATE jobs SET processor = 'other' WHERE next_attempt_at <= now()")
    pipeline.evaluate(1)
    pipeline.evaluate(RULES["jobs_old"].recover_for_s)
    assert pipeline.fires(alert)
    assert not recoveries(pipeline)


GONE: dict[str, Act] = {
    "schedule_overdue": sql("DELETE FROM schedules"),
    "source_quiet": lambda pipeline: setattr(pipeline, "keys", {"other": ("new1",)}),
    "old_key_used": lambda pipeline: setattr(pipeline, "keys", {"shop": ("new1",)}),
    "channel_fails": sql(_GIVEN_UP),
}
"""What removes the subject of a rule."""


@pytest.mark.parametrize("slug", GONE)
def test_an_alert_whose_subject_is_removed_ends_at_once_without_a_recovery(
    slug: str, pipeline: Pipeline
) -> None:
    alert = fire(slug, pipeline)
    GONE[slug](pipeline)
    pipeline.evaluate(1)
    assert not pipeline.fires(alert)
    assert not recoveries(pipeline)


def test_a_quiet_source_recovers_only_once_it_delivers_again(pipeline: Pipeline) -> None:
    alert = fire("source_quiet", pipeline)
    pipeline.changes["past_hours"] = ()
    pipeline.evaluate(3600)  # the next hour is not usually busy
    pipeline.evaluate(4 * 86_400)  # and too few of the days before were
    assert pipeline.fires(alert)
    assert not recoveries(pipeline)
    pipeline.count("key", "shop new1", 1)
    pipeline.evaluate(15)
    assert not pipeline.fires(alert)
    assert recoveries(pipeline) == ["Recovered: shop delivers again."]


def test_a_process_without_secrets_takes_no_source_for_removed(pipeline: Pipeline) -> None:
    pipeline.keys = {"unsigned": ()}
    alert = fire("source_quiet", pipeline)
    pipeline.changes["past_hours"] = ()
    pipeline.evaluate(3600)
    assert pipeline.fires(alert)


def test_an_alert_whose_rule_is_switched_off_ends_without_a_recovery(pipeline: Pipeline) -> None:
    alert = fire("database_large", pipeline)
    assert not DEFAULTS.policies["database_large"].enabled
    pipeline.configuration = replace(pipeline.configuration, policies=DEFAULTS.policies)
    pipeline.evaluate(1)
    assert not pipeline.fires(alert)
    with pipeline.engine.connect() as connection:
        assert not alerts.unfinished(connection)
    limit_of(10**15)(pipeline)
    pipeline.evaluate(1)
    assert not recoveries(pipeline)


def test_what_any_process_of_a_kind_lacks_is_told(pipeline: Pipeline) -> None:
    pipeline.process("relay", "{lacks UPDATE on ingest.jobs}")
    execute(
        pipeline.engine,
        "INSERT INTO processes (id, kind, host, pid, version, started_at, seen_at, lacks)"
        " SELECT id || number, kind, 'z', pid, version, started_at, seen_at,"
        " CASE number WHEN 1 THEN lacks || ARRAY['lacks SELECT on ingest.events'] ELSE '{}' END"
        " FROM processes, generate_series(1, 2) AS number WHERE kind = 'relay'",
    )
    pipeline.evaluate()
    assert pipeline.firing()["privileges_missing"].sentence == (
        "The database role of the relays lacks UPDATE on ingest.jobs;"
        " lacks SELECT on ingest.events."
    )


@contextmanager
def answering(answers: list[str | None]) -> Iterator[list[str]]:
    """Slack's stand-in: what it is sent. Each answer is an error, or None; then all is taken."""
    sent: list[str] = []

    def send(_channel: object, envelope: Envelope, _environ: object) -> str:
        error = answers.pop(0) if answers else None
        if error is not None:
            raise ChannelFailed(error, reason="refused")
        sent.append(envelope.message.title)
        return "ok"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "send", send)
        yield sent


def test_a_relay_that_evaluates_before_its_first_report_is_not_missed(pipeline: Pipeline) -> None:
    execute(pipeline.engine, "DELETE FROM processes")
    pipeline.kind = "relay"
    pipeline.evaluate()
    pipeline.evaluate(later_s=60)
    assert "no_worker" in pipeline.firing()
    assert "no_relay" not in pipeline.firing()


def test_one_of_several_relays_evaluates_in_an_interval(pipeline: Pipeline) -> None:
    first, second = pipeline.evaluation("first"), pipeline.evaluation("second")
    assert first.run_if_due(every_s=3_600)
    assert not second.run_if_due(every_s=3_600)
    execute(pipeline.engine, "UPDATE alert_turns SET at = at - interval '2 hours'")
    assert second.run_if_due(every_s=3_600)
    # A clock that was ahead keeps nobody from evaluating.
    execute(pipeline.engine, "UPDATE alert_turns SET at = at + interval '9 hours'")
    assert first.run_if_due(every_s=3_600)


def test_a_message_that_another_relay_is_just_taking_is_not_taken(pipeline: Pipeline) -> None:
    execute(pipeline.engine, "DELETE FROM processes WHERE kind = 'worker'")
    pipeline.evaluate()
    pipeline.evaluate(later_s=60)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def take(connection: Connection) -> int:
        now = server_time(connection) + pipeline.ahead
        return len(alerts.take(connection, list(CHANNELS), now=now))

    def take_too() -> int:
        with another.begin() as connection:
            return take(connection)

    another = create_engine(parse(pipeline.database_url), role=Role.RELAY)
    with ThreadPoolExecutor(1) as pool:
        with pipeline.relay.begin() as connection:
            assert take(connection) == 1
            second = pool.submit(take_too)
            until(lambda: one(pipeline.engine, waiting), what="the second waits for the first")
        assert second.result() == 0
    another.dispose()


def test_several_relays_at_once_tell_and_send_once(pipeline: Pipeline) -> None:
    execute(pipeline.engine, "DELETE FROM processes WHERE kind = 'worker'")
    pipeline.evaluate()
    pipeline.ahead += timedelta(minutes=1)
    evaluations = [pipeline.evaluation(f"relay {number}") for number in range(4)]
    execute(pipeline.engine, "UPDATE alert_turns SET at = at - interval '1 min'")
    with ThreadPoolExecutor(4) as pool, answering([]) as sent:
        done = list(pool.map(lambda each: each.run_if_due(every_s=30), evaluations))
        assert sorted(done) == [False, False, False, True]
        assert len(pipeline.titles()) == 1
        deliveries = [
            Delivery(
                pipeline.relay,
                pipeline.configuration,
                {},
                clock=lambda connection: server_time(connection) + pipeline.ahead,
            )
            for _ in range(4)
        ]
        taken = list(pool.map(lambda each: each.run(), deliveries))
        assert sum(taken) == 1
    assert sent == ["Alert: No worker is alive: events are stored, and nobody processes them."]


def test_a_channel_that_is_down_is_tried_again_in_order_and_holds_up_no_other(
    pipeline: Pipeline,
) -> None:
    ahead = [timedelta()]

    def clock(connection: Connection) -> datetime:
        return server_time(connection) + ahead[0]

    channels = CHANNELS | {"other": Slack(kind="slack", url_env="OTHER", rules=("no_relay",))}
    pipeline.configuration = replace(pipeline.configuration, channels=channels)
    delivery = Delivery(pipeline.relay, pipeline.configuration, {}, clock=clock)
    with pipeline.engine.begin() as connection:
        for number, (channel, title) in enumerate((("team", "1"), ("team", "2"), ("other", "3"))):
            message = replace(notices.compose_test(channel, "me"), title=title)
            content = notices.to_json(message)
            now = server_time(connection)
            alerts.queue(connection, UUID(int=number), channel, content, now=now)
    with answering(["HTTP 500."]) as sent:
        assert delivery.run() == 2
        assert len(sent) == 1  # one of the two channels is down
        with pipeline.engine.connect() as connection:
            states = alerts.channel_states(connection)
        (down,) = [state for state in states.values() if state.error]
        assert (down.error, down.attempts) == ("HTTP 500.", 1)
        for _ in range(3):
            ahead[0] += timedelta(seconds=16)
            delivery.run()
    assert sorted(sent) == ["1", "2", "3"]
    assert sent.index("1") < sent.index("2")


def test_a_message_that_is_not_taken_for_a_day_is_given_up(pipeline: Pipeline) -> None:
    late = timedelta(hours=24)
    delivery = Delivery(
        pipeline.relay,
        pipeline.configuration,
        {},
        clock=lambda connection: server_time(connection) + late,
    )
    with pipeline.engine.begin() as connection:
        content = notices.to_json(notices.compose_test("team", "me"))
        now = server_time(connection)
        alerts.queue(connection, UUID(int=1), "team", content, now=now)
    with answering(["HTTP 500."]):
        assert delivery.run() == 1
    with pipeline.engine.connect() as connection:
        state = alerts.channel_states(connection)["team"]
    assert (state.given_up, state.waiting, state.error) == (1, 0, "HTTP 500.")


def test_messages_for_a_channel_that_was_removed_are_given_up_after_a_day_and_its_alert_ends(
    pipeline: Pipeline,
) -> None:
    alert = fire("channel_fails", pipeline)
    pipeline.evaluate(86_400 - 21 * 60)  # the message was 20 minutes old already
    assert pipeline.fires(alert)
    pipeline.evaluate(60)  # it is given up
    pipeline.evaluate(15)
    assert not pipeline.fires(alert)
    assert not recoveries(pipeline)
    with pipeline.engine.connect() as connection:
        state = alerts.channel_states(connection)["pager"]
    assert (state.given_up, state.waiting) == (1, 0)


def test_why_a_channel_failed_stays_told_when_later_messages_are_given_up_untried(
    pipeline: Pipeline,
) -> None:
    execute(pipeline.engine, f"{_STUCK}; UPDATE alert_messages SET error = 'HTTP 500.'; {_STUCK}")
    pipeline.evaluate(86_400)
    with pipeline.engine.connect() as connection:
        state = alerts.channel_states(connection)["pager"]
    assert (state.given_up, state.error) == (2, "HTTP 500.")


def test_who_acknowledged_an_alert_stays_recorded(pipeline: Pipeline) -> None:
    execute(pipeline.engine, "DELETE FROM processes WHERE kind = 'worker'")
    pipeline.evaluate()
    pipeline.evaluate(60)
    number = pipeline.firing()["no_worker"].id
    with pipeline.engine.begin() as connection:
        alerts.acknowledge(connection, number, by="amal")
        assert alerts.acknowledge(connection, number, by="omar").acknowledged_by == "amal"
        with pytest.raises(NotFound):
            alerts.acknowledge(connection, number + 1, by="amal")
    pipeline.evaluate(20_000)
    assert pipeline.firing()["no_worker"].acknowledged_by == "amal"
    assert len(pipeline.titles()) == 1
    with pipeline.engine.begin() as connection:
        assert alerts.unacknowledge(connection, number).acknowledged_by is None
    pipeline.evaluate(40_000)
    assert len(pipeline.titles()) == 2  # a reminder


def test_a_source_is_quiet_only_where_it_was_busy_a_week_before(pipeline: Pipeline) -> None:
    past_days(pipeline)
    execute(pipeline.engine, "DELETE FROM activity WHERE minute < now() - interval '6 days 12 h'")
    pipeline.evaluate()
    pipeline.evaluate(60)
    assert not pipeline.firing()
