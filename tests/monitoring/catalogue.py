"""The faults: what sets each alert off, and which other alerts may come with it."""

from dataclasses import dataclass

from tests.monitoring import strikes
from tests.monitoring.strikes import Strike

PREFIX = "Ingest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which things go wrong."""

    what: str
    strike: Strike
    alerts: tuple[str, ...]
    """Those that must fire, without the prefix that all have."""
    may: tuple[str, ...] = ()
    """Those that may come with them."""
    usual_s: float = 40
    """Seconds until its alerts have fired. Ten times that is waited for."""
    short: str | None = None
    """In the short form, faults with the same word here are made at once; without one, none."""


_RESTART = ("NoReceiver", "NoWorker", "ProcessGone")
"""While a process is replaced it is away for a second or some; here that is longer than `for`."""
_ENDS = "ends"
_TROUBLES = "troubles"

FAULTS = (
    Fault(
        what="the receiver is stopped",
        strike=strikes.stopped("receiver"),
        alerts=("NoReceiver", "ProcessGone"),
        may=("PossibleLosses",),  # of what it is sent while it ends
        short=_ENDS,
    ),
    Fault(
        what="the worker is stopped",
        strike=strikes.stopped("worker"),
        alerts=("NoWorker", "ProcessGone"),
        short=_ENDS,
    ),
    Fault(
        what="the relay is stopped",
        strike=strikes.stopped("relay"),
        alerts=("NoRelay", "ProcessGone"),
        short=_ENDS,
    ),
    Fault(
        what="the console is stopped",
        strike=strikes.stopped("console"),
        alerts=("ProcessGone",),
        short=_ENDS,
    ),
    Fault(
        what="PostgreSQL is stopped, for more than a minute",
        strike=strikes.stopped("postgres"),
        alerts=("StorageFails", "AnswersFail", "PossibleLosses", "RelayStuck"),
        may=("TasksFail", "DispatchFails", "BacklogOld", "LagHigh"),
        usual_s=90,
    ),
    Fault(
        what="PostgreSQL lets no worker in",
        strike=strikes.database_away_for_workers,
        alerts=("TasksFail",),
        may=("BacklogOld", "LagHigh"),
    ),
    Fault(
        what="Redis is stopped",
        strike=strikes.stopped("redis"),
        alerts=("DispatchFails",),
        may=("RelayStuck", "BacklogOld", "TasksFail"),
    ),
    Fault(
        what="a request runs into a bug of a sender's plugin",
        strike=strikes.sent(strikes.BUG, source="till"),
        alerts=("Bug", "PossibleLosses"),
        may=("ProcessGone",),  # with all the others at once, a scrape is late
        short=_TROUBLES,
    ),
    Fault(
        what="commits take two seconds",
        strike=strikes.slow_commits,
        alerts=("AnswersSlow",),
        usual_s=60,
    ),
    Fault(
        what="a secret is replaced at the sender alone",
        strike=strikes.signed_otherwise,
        alerts=("SignedRefused",),
    ),
    Fault(
        what="what is signed is no event",
        strike=strikes.sent(b"[]"),
        alerts=("EventsRejected",),
        short=_TROUBLES,
    ),
    Fault(
        what="a sender of 600 events sends none",
        strike=strikes.source_quiet,
        alerts=("SourceQuiet",),
        usual_s=60,
    ),
    Fault(
        what="the sender's clock is a minute behind",
        strike=strikes.clock_behind,
        alerts=("ClockSkew",),
        short=_TROUBLES,
    ),
    Fault(
        what="the sender signs with the older key",
        strike=strikes.older_key_used,
        alerts=("OldKeyUsed",),
        may=_RESTART,
    ),
    Fault(
        what="the worker is stopped, for more than a minute",
        strike=strikes.stopped("worker"),
        alerts=("BacklogOld", "NoWorker", "ProcessGone"),
        may=("LagHigh",),
        usual_s=90,
    ),
    Fault(
        what="a processor puts its events off by a minute",
        strike=strikes.late,
        alerts=("LagHigh",),
        usual_s=120,
    ),
    Fault(
        what="a job of two hours ago is not done",
        strike=strikes.job_old,
        alerts=("JobsOld",),
        may=("BacklogOld", "LagHigh"),
    ),
    Fault(
        what="a job has spent its attempts",
        strike=strikes.failing("cards", "card.charged"),
        alerts=("DeadLetters",),
        may=("ProcessorFails",),
        short=_TROUBLES,
    ),
    Fault(
        what="101 jobs have",
        strike=strikes.failing("cards", "card.charged", events=101),
        alerts=("DeadLettersKept", "DeadLetters"),
        may=("ProcessorFails",),
    ),
    Fault(
        what="a processor fails at each attempt",
        strike=strikes.failing("stock", "stock.changed"),
        alerts=("ProcessorFails",),
        short=_TROUBLES,
    ),
    Fault(
        what="a processor ends its process",
        strike=strikes.failing("files", "file.converted", events=8),
        alerts=("WorkersCrash",),
    ),
    Fault(
        what="a deploy leaves a processor out",
        strike=strikes.processor_removed,
        alerts=("JobsParked",),
        may=(*_RESTART, "ProcessorFails"),
        usual_s=90,
    ),
    Fault(
        what="a processor is paused",
        strike=strikes.processor_paused,
        alerts=("JobsPaused",),
        short=_TROUBLES,
    ),
    Fault(
        what="the relay's measuring hangs, for more than five minutes",
        strike=strikes.measuring_hangs,
        alerts=("MeasurementOld",),
        usual_s=330,
    ),
    Fault(
        what="an event comes again with other content",
        strike=strikes.same_id_twice,
        alerts=("Conflicts",),
        short=_TROUBLES,
    ),
    Fault(
        what="the partitions of the coming days are dropped",
        strike=strikes.partitions_missing,
        alerts=("PartitionsRunOut",),
        short=_TROUBLES,
    ),
    Fault(
        what="retention hangs, and a count of 40 days ago is kept for 30",
        strike=strikes.retention_hangs,
        alerts=("RetentionBehind",),
        short=_TROUBLES,
    ),
    Fault(
        what="32 wait for the console's 8 connections",
        strike=strikes.console_crowded,
        alerts=("PoolWaits",),
        usual_s=60,
    ),
)
