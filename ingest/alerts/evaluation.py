"""Evaluate the rules, once for all processes, and write the messages of what has changed."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingest.alerts import absence, facts, judges, lifecycle, notices
from ingest.alerts.configuration import Configuration
from ingest.alerts.facts import Facts, Surroundings
from ingest.store import alerts
from ingest.store.server_time import server_time

_PURPOSE = "evaluation"

Read = Callable[[Connection, Configuration, Surroundings], Facts]


class Evaluation:
    """Evaluates the rules of a configuration."""

    def __init__(
        self,
        engine: Engine,
        configuration: Configuration,
        around: Surroundings,
        *,
        by: str,
        random: Callable[[int], bytes],
        read: Read = facts.read,
    ) -> None:
        """Evaluate through `engine`.

        Args:
            engine: of the relay's role.
            configuration: rules and channels.
            around: what the process knows beside the database.
            by: the process, to tell it from others.
            random: returns so many random bytes, for the ids of messages.
            read: reads the facts; their `now` is the time of the evaluation.
        """
        self._engine = engine
        self._configuration = configuration
        self._around = around
        self._by = by
        self._random = random
        self._read = read

    def run_if_due(self, *, every_s: float) -> bool:
        """Evaluate, unless any process did so less than `every_s` seconds ago. Return whether it
        was done.

        Raises:
            SQLAlchemyError: PostgreSQL is away or refuses.
        """
        every = timedelta(seconds=every_s)
        with self._engine.begin() as connection:
            now = server_time(connection)
            if not alerts.take_turn(connection, _PURPOSE, by=self._by, every=every, now=now):
                return False
        return self.run()

    def run(self) -> bool:
        """Evaluate, if it is this process's turn still. Return whether it was.

        Raises:
            SQLAlchemyError: PostgreSQL is away or refuses.
        """
        with self._engine.begin() as connection:
            seen = self._read(connection, self._configuration, self._around)
        with self._engine.begin() as connection:
            if not alerts.hold_turn(connection, _PURPOSE, by=self._by):
                return False
            self._advance(connection, seen)
            self._tell(connection, seen.now)
            alerts.give_up(connection, channels=seen.channels, now=seen.now)
            alerts.forget(connection, now=seen.now)
        return True

    def _advance(self, connection: Connection, seen: Facts) -> None:
        policies = self._configuration.policies
        current = [alert for alert in alerts.unfinished(connection) if not alert.recovered_at]
        changes = lifecycle.advance(
            current,
            judges.findings(seen, policies),
            policies,
            absences={
                (alert.rule, alert.subject): absence.explain(seen, alert.rule, alert.subject)
                for alert in current
            },
            now=seen.now,
        )
        alerts.delete(connection, changes.deleted)
        alerts.save(connection, changes.saved)

    def _tell(self, connection: Connection, now: datetime) -> None:
        configuration = self._configuration
        if not configuration.channels:
            return
        since = now - timedelta(seconds=configuration.throttle_s)
        told = notices.decide(
            alerts.unfinished(connection),
            configuration,
            alerts.last_told(connection, since=since),
            now=now,
        )
        alerts.save(connection, told.told)
        for channel, message in told.messages:
            content: Mapping[str, object] = notices.to_json(message)
            number = UUID(bytes=self._random(16), version=4)
            alerts.queue(connection, number, channel, content, now=now)
