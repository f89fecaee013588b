"""Writes docs/capacity.md from figures that other pages measured: `python3 docs/capacity.py`."""

# ruff: noqa: E501 - the page has longer lines than code

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.doctor.connections import OF_A_PROCESS

PAGE = Path(__file__).with_suffix(".md")
RATES = (1_000, 10_000, 100_000)
"""Events a second, held day and night."""
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and the words of the page that has it; a test looks for them there."""

    value: float
    page: str
    words: str


_END_TO_END = "receiver 0.26, PostgreSQL 0.16, worker 0.16"
RECEIVER_MS = Measured(0.26, "performance.md", _END_TO_END)
POSTGRES_MS = Measured(0.16, "performance.md", _END_TO_END)
WORKER_MS = Measured(0.16, "performance.md", _END_TO_END)
"""CPU of an event, milliseconds."""
HELD = Measured(2_500, "performance.md", "2,500 a second, 0.43 of *verify only* here")
FULL = Measured(3_300, "performance.md", "cores are full at 3,300 a second")
WAL_BYTES = Measured(3_300, "performance.md", "3.3 kB of write-ahead log")
STATEMENTS = Measured(0.21, "performance.md", "An event costs 0.21 SQL statements")
KEPT_BYTES = Measured(817, "retention.md", "an event is kept with one job for 817 B")
STORED_BYTES = Measured(1_335, "retention.md", "with its body for 1,335 B")
REMEMBERED_BYTES = Measured(136, "retention.md", "remembered for 136 B")
LEDGER_INDEX_BYTES = Measured(340, "retention.md", "| `events` | 182 | 340 | 522 |")
REMOVED_PER_S = Measured(2_749, "retention.md", "2,749 a second, pauses included")
WAITING_THREADS = Measured(401, "performance.md", "`threads=20` | 401 |")
MESSAGE_BYTES = 983
ID_BYTES = 49.2
"""Of Redis, a message and each id in it: `used_memory` of Valkey 9.1 after 200 messages of 200 ids
(54 B an id) and 1,000 messages of one (1,032 B). `integration/test_dispatch.py` holds the first."""
GATHER_S = 1.0
IDS_PER_MESSAGE = 200
"""While workers are late, a receiver sends what came in so many seconds in a message, up to so many
ids (`ingest/dispatch.py`)."""
MEASURED = (
    *(RECEIVER_MS, POSTGRES_MS, WORKER_MS, HELD, FULL, WAL_BYTES, STATEMENTS, KEPT_BYTES),
    *(STORED_BYTES, REMEMBERED_BYTES, LEDGER_INDEX_BYTES, REMOVED_PER_S, WAITING_THREADS),
)

USABLE = round(HELD.value / FULL.value, 2)
"""The share of a core's time that may be in use: what was held, of what filled both cores."""
CHECKPOINT_S = 900
"""`checkpoint_timeout` that is advised."""
RELAY_BATCH = 1_000
"""The default of `INGEST_RELAY_BATCH`, a second with the default of `INGEST_RELAY_INTERVAL_S`."""
FREEZE_AGE = 200_000_000
"""PostgreSQL's default of `autovacuum_freeze_max_age`."""


Row = tuple[str, Callable[[int], str]]
"""What is told, and what it is at a rate."""
_ALL_MS = RECEIVER_MS.value + POSTGRES_MS.value + WORKER_MS.value
_BODY_BYTES = STORED_BYTES.value - KEPT_BYTES.value
_POLICY_BYTES = 7 * _BODY_BYTES + 30 * KEPT_BYTES.value + 60 * REMEMBERED_BYTES.value
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def cores(rate: int, milliseconds: float) -> float:
    """Return the cores that are busy with events that cost so much CPU."""
    return rate * milliseconds / 1_000


def processes(rate: int, milliseconds: float) -> int:
    """Return how many processes, each of which uses one core, take events that cost so much."""
    return math.ceil(cores(rate, milliseconds) / USABLE)


def connections(rate: int) -> int:
    """Return the connections of the processes for a rate, and of two relays and two consoles."""
    receivers = max(2, processes(rate, RECEIVER_MS.value))
    workers = max(2, processes(rate, WORKER_MS.value))
    return (
        receivers * OF_A_PROCESS["receiver"]
        + workers * OF_A_PROCESS["worker"]
        + 2 * OF_A_PROCESS["relay"]
        + 2 * OF_A_PROCESS["console"]
    )


def waiting_bytes(rate: int) -> float:
    """Return the bytes of Redis that an event takes while it waits for a worker."""
    ids = min(IDS_PER_MESSAGE, GATHER_S * rate / processes(rate, RECEIVER_MS.value))
    return MESSAGE_BYTES / ids + ID_BYTES


def size(number: float) -> str:
    """Return bytes as a person says them, with two digits or three."""
    unit = 0
    while number >= 1_000 and unit < len(_UNITS) - 1:
        number, unit = number / 1_000, unit + 1
    return f"{number:,.0f} {_UNITS[unit]}" if number >= 10 else f"{number:,.1f} {_UNITS[unit]}"


def page() -> str:
    """Return the page."""
    return "".join(
        (_head(), _processes(), _database(), _disks(), _redis(), _limits(), _events(), _beyond())
    )


def _head() -> str:
    return f"""# Capacity

What one machine does, what a rate needs, and where the limits lie. The figures in the first table were measured, on the pages
that are named; everything below is arithmetic on them, and `docs/capacity.py` does it anew when one of them changes. **Nothing
above {FULL.value:,.0f} events a second has been run**: multiply, then measure on your own machines (`python3 dev.py bench`) before
you buy. Rates are held day and night; a shop's peak of an hour is often ten times its mean, and CPU is bought for the peak, disk
for the mean.

| measured, an event of 300 B with one job, on two cores of a 2 GHz EPYC (half the speed of a current laptop's) | | from |
| --- | --- | --- |
| held for two minutes, with receiver, worker, PostgreSQL, Redis and client on the two cores | {HELD.value:,.0f}/s | [Performance](performance.md) |
| both cores full | {FULL.value:,.0f}/s | [Performance](performance.md#the-marks-and-the-machine) |
| CPU of a receiver, of PostgreSQL, of a worker | {RECEIVER_MS.value} ms, {POSTGRES_MS.value} ms, {WORKER_MS.value} ms | [Performance](performance.md#the-marks-and-the-machine) |
| write-ahead log | {WAL_BYTES.value / 1_000:g} kB | [Performance](performance.md) |
| kept with its job; with its body too; only remembered | {KEPT_BYTES.value:,.0f} B; {STORED_BYTES.value:,.0f} B; {REMEMBERED_BYTES.value:,.0f} B | [Retention](retention.md#figures) |
| removed because of their age | {REMOVED_PER_S.value:,.0f}/s | [Retention](retention.md#figures) |
| through a processor that waits 20 ms, `threads=20`, one worker of two processes | {WAITING_THREADS.value:,.0f}/s | [Performance](performance.md) |

So one machine of two cores takes **{HELD.value:,.0f} events a second**, {HELD.value * DAY_S / 1e6:,.0f} million a day, with a processor
that only writes to PostgreSQL. What was held is {USABLE:g} of what filled the cores: above that answers queue first (p95 0.23 s at
{HELD.value:,.0f}), then effects fall behind. The arithmetic below plans with that share of each core.

"""


def _processes() -> str:
    rows = (
        ("busy with receiving", lambda rate: f"{cores(rate, RECEIVER_MS.value):.1f} cores"),
        ("busy in PostgreSQL", lambda rate: f"{cores(rate, POSTGRES_MS.value):.1f} cores"),
        ("busy with processing", lambda rate: f"{cores(rate, WORKER_MS.value):.1f} cores"),
        (
            f"cores to have, a share of {USABLE:g} in use",
            lambda rate: f"{math.ceil(cores(rate, _ALL_MS) / USABLE):,}",
        ),
        ("receivers (`ingest serve`)", lambda rate: f"{processes(rate, RECEIVER_MS.value)}"),
        (
            "processes of workers (`INGEST_CONCURRENCY`, over all workers)",
            lambda rate: f"{processes(rate, WORKER_MS.value)}",
        ),
        ("connections to PostgreSQL, at most", lambda rate: f"{connections(rate)}"),
    )
    return (
        "## CPU, processes, connections\n\n"
        + _table(rows)
        + f"""
`rate x milliseconds / 1,000` are the busy cores. A receiver, and a process of a worker, is one Python process and fills one
core at most: {1_000 / RECEIVER_MS.value:,.0f} and {1_000 / WORKER_MS.value:,.0f} events a second, {USABLE:g} of which are planned.
Run two receivers, relays and consoles anyway, so that one may fail. Two receivers on two cores cost 380 µs an event instead of 262
([Performance](performance.md#scaling-on-two-cores)), because there they took each other's core; with cores of their own that is not
measured.

- **A processor that waits for others** is bound by its waiting, not by CPU: a process does `threads / seconds of a call`. A call of
  20 ms on 20 threads is 1,000 a second by that, and {WAITING_THREADS.value / 2:,.0f} a process were measured, on cores that
  PostgreSQL used too. Give it a queue and processes of its own (`INGEST_WORKER_PROCESSES`).
- **Connections**: a receiver opens {OF_A_PROCESS["receiver"]}, each process of a worker {OF_A_PROCESS["worker"]} and one more a
  thread, a relay {OF_A_PROCESS["relay"]}, a console {OF_A_PROCESS["console"]}; the table has two relays and two consoles.
  PostgreSQL's default `max_connections` is 100, of which three are reserved. Raise it, or put
  PgBouncer before it (transaction mode, `default_pool_size` of the processes' number): nothing is prepared then, and admission costs
  84 to 97 µs instead of about 80 ([Performance](performance.md#whenever-statistics-were-taken)). `ingest doctor` compares the two
  (`connections_too_few`).
- **Larger bodies**: a receiver took 3,741 requests of 2 kB a second, and 561 of 64 kB ([Performance](performance.md#how-fast-it-is)).

"""
    )


def _database() -> str:
    rows = (
        ("write-ahead log", lambda rate: f"{size(rate * WAL_BYTES.value)}/s"),
        ("a day of it, for an archive", lambda rate: size(rate * WAL_BYTES.value * DAY_S)),
        ("to each standby", lambda rate: f"{rate * WAL_BYTES.value * 8 / 1e9:.2g} Gbit/s"),
        (
            "until 1 GB of it (`max_wal_size`, PostgreSQL's default)",
            lambda rate: f"{1e9 / (rate * WAL_BYTES.value):,.0f} s",
        ),
        (
            "`max_wal_size` for a checkpoint every 15 min",
            lambda rate: size(2 * rate * WAL_BYTES.value * CHECKPOINT_S),
        ),
        ("statements", lambda rate: f"{rate * STATEMENTS.value:,.0f}/s"),
        (
            "until `autovacuum_freeze_max_age` (200 million), at a transaction a statement",
            lambda rate: f"{FREEZE_AGE / (rate * STATEMENTS.value) / 3_600:,.1f} h",
        ),
    )
    return (
        "## The write-ahead log and checkpoints\n\n"
        + _table(rows)
        + """
- A checkpoint that comes sooner makes more log: the first change of a page after it writes the whole page. PostgreSQL begins one
  when about half of `max_wal_size` has been written, hence the factor 2. Set `checkpoint_timeout = 15min`, `max_wal_size` as above,
  `checkpoint_completion_target = 0.9` (the default), and `wal_compression = lz4`. How much less log that is has not been measured: the
  3.3 kB are those of PostgreSQL's defaults.
- Set `min_wal_size` to the same. PostgreSQL uses files of the log again, but removes what is beyond `min_wal_size` (80 MB by default) when little
  is written, and at the next peak makes each file anew: 16 MB of zeros, for which every commit waits. At 3,150 events a second on two cores
  answers had a p99 of 67 ms with new files and of 31 ms with files that were there (200 s each).
- After a crash PostgreSQL replays what was written since the last checkpoint. Receivers answer 503 meanwhile.
- Deliveries that come while a commit runs share the next one, up to `INGEST_FLUSH_MAX_ROWS` (500). So the number of flushes does not
  grow with the rate, and what counts is how long one takes: an answer waits for one or two. Put the log (`pg_wal`) on a disk of its
  own whose flush takes 1 ms or less (`pg_test_fsync`); network disks of clouds take more.
- A processor that is called event by event runs in a savepoint each, which takes a transaction id of its own if it writes:
  then the ids go at the rate of events, five times as fast as in the table. Let `autovacuum_freeze_max_age` be 1 billion at 10,000 a second and more,
  and watch `age(datfrozenxid)` by the exporter of PostgreSQL.
- `shared_buffers` of a quarter of the memory; the default of 128 MB is what the figures were measured with.

"""
    )


def _disks() -> str:
    rows = (
        ("bodies, a day (a partition)", lambda rate: size(rate * _BODY_BYTES * DAY_S)),
        ("events with a job, a day", lambda rate: size(rate * KEPT_BYTES.value * DAY_S)),
        ("bodies for 7 days", lambda rate: size(rate * _BODY_BYTES * DAY_S * 7)),
        ("events for 30 days", lambda rate: size(rate * KEPT_BYTES.value * DAY_S * 30)),
        (
            "remembered for 60 days more",
            lambda rate: size(rate * REMEMBERED_BYTES.value * DAY_S * 60),
        ),
        (
            "together, with a fifth for rows that vacuum has not reached",
            lambda rate: size(1.2 * rate * DAY_S * _POLICY_BYTES),
        ),
    )
    return (
        "## Disks and retention\n\n"
        + _table(rows)
        + f"""
Further jobs, failed attempts and your own tables come on top, and the log of the table above. Everything is kept for ever unless
[settings](retention.md) say otherwise, so set the ages before the disk does.

Bodies go with their partition, at once and at any rate. **Events go one by one: {REMOVED_PER_S.value:,.0f} a second** were measured, by
one relay at a time, which pauses two thirds of the time. Above that rate, day and night, the ledger grows however short its age is. An
`ingest retention --run-now` makes a pass without the pauses: at most three times that by arithmetic. So plan to keep events
for ever at more than {3 * REMOVED_PER_S.value:,.0f} a second, or to split (below).

The partition of a day is the smallest part of the bodies that can go, and it is made 14 days ahead (`INGEST_PARTITION_DAYS_AHEAD`).

"""
    )


def _redis() -> str:
    rows = (
        ("an event that waits", lambda rate: f"{waiting_bytes(rate):.0f} B"),
        ("workers stopped for an hour", lambda rate: size(3_600 * rate * waiting_bytes(rate))),
    )
    return (
        "## Redis\n\n"
        + _table(rows)
        + f"""
A message takes {MESSAGE_BYTES} B and each id in it {ID_BYTES:g} B (Valkey 9.1, `used_memory`). While many
messages wait, a receiver collects ids for a second, up to {IDS_PER_MESSAGE} a message; the receivers are those of the table above.

While workers keep up, Redis holds next to nothing. If they stop, it grows: give it memory for the longest stop that you plan, and
`maxmemory-policy noeviction`. When it is full it refuses messages, events are stored all the same, and the relay finds them. A
relay takes {RELAY_BATCH:,} a second from there (`INGEST_RELAY_BATCH`, each `INGEST_RELAY_INTERVAL_S`, of each queue): **above that rate
set it to twice your events a second**, or what came while Redis was away is never caught up with.

"""
    )


def _limits() -> str:
    return f"""## Where the limits lie, and how one sees them

With default settings, on a machine of two cores, the lowest first where it is a rate:

| limit | at | what one sees first | alert | what to change |
| --- | --- | --- | --- | --- |
| checkpoints | {1e9 / WAL_BYTES.value / 300:,.0f}/s: 1 GB of log in 5 min | `ingest_commit_duration_seconds` in waves; PostgreSQL logs "checkpoints are occurring too frequently" | `IngestAnswersSlow` | `max_wal_size`, `checkpoint_timeout` |
| relay after an outage of Redis | {RELAY_BATCH:,}/s | `ingest_backlog_events` does not fall | `IngestBacklogOld` | `INGEST_RELAY_BATCH` |
| retention of events | {REMOVED_PER_S.value:,.0f}/s, held | `ingest retention`: what would go now grows; `ingest_retention_last_pass_timestamp_seconds` stands still | - | keep events longer than you planned; `--run-now`; split |
| CPU of the machine | {HELD.value:,.0f} to {FULL.value:,.0f}/s | `ingest_answer_duration_seconds` rises, then `ingest_backlog_age_seconds` | `IngestAnswersSlow`, `IngestBacklogOld`, `IngestLagHigh` | PostgreSQL on a machine of its own, then workers, then receivers |
| a receiver's core | {1_000 / RECEIVER_MS.value:,.0f}/s each | `rate(ingest_process_cpu_seconds_total)` near 1; `ingest_waiting_deliveries` | `IngestAnswersSlow`, then `IngestAnswersFail` (503: `INGEST_BACKLOG_MAX_ROWS` wait) | more receivers behind the proxy |
| a worker's core | {1_000 / WORKER_MS.value:,.0f}/s a process | `ingest_backlog_age_seconds`, `ingest_lag_seconds` | `IngestBacklogOld`, `IngestLagHigh` | `INGEST_CONCURRENCY` up to the cores, then more workers |
| processors that wait | threads / seconds of a call | `ingest_attempt_duration_seconds`, `ingest_oldest_job_age_seconds` | `IngestLagHigh`, `IngestJobsOld` | `threads=`, a queue of its own |
| connections | 97 | `ingest doctor`: `connections_too_few` | `IngestTasksFail`, `IngestStorageFails` when it is too late | `max_connections`, or PgBouncer |
| flushes of the disk | their time | `ingest_commit_duration_seconds` p50 | `IngestAnswersSlow` | a disk of its own for `pg_wal` |
| room on the disk | bytes above | `ingest doctor`: `disk_low`; the exporter of the machine | `IngestStorageFails` when it is too late | ages of [Retention](retention.md) |
| the console's connections | 8 at once | `ingest_pool_wait_seconds` | `IngestPoolWaits` | a second console |

`docs/metrics.md` says what each alert means and how soon it fires.

"""


def _events() -> str:
    hundred, thousand = 10**8, 10**9
    rows = "".join(
        f"| {what} | {number(hundred)} | {number(thousand)} |\n"
        for what, number in (
            ("kept with one job", lambda events: size(events * KEPT_BYTES.value)),
            ("with their bodies", lambda events: size(events * STORED_BYTES.value)),
            ("indexes of `events`", lambda events: size(events * LEDGER_INDEX_BYTES.value)),
            ("only remembered", lambda events: size(events * REMEMBERED_BYTES.value)),
            (
                "removed at the measured rate",
                lambda events: f"{events / REMOVED_PER_S.value / 3_600:,.0f} h",
            ),
            (
                "come in at 1,000 a second",
                lambda events: f"{events / 1_000 / 3_600:,.0f} h",
            ),
        )
    )
    return f"""## 100 million and a billion events stored

| | 100 million | a billion |
| --- | --- | --- |
{rows}
Ten million have been measured ([Performance](performance.md#with-ten-million-events-stored)): answers and drain as with none, and every
page in milliseconds. Beyond, what changes is whether indexes fit the memory. Keys by id and time are written at their end, and their
hot part is small. The key by source and the sender's id is met at random: once it is larger than the memory, each event costs a
read of the disk, and one more in `past_events` if events have been removed. That is as many reads a second as events, which one
NVMe disk gives at 10,000 a second, and a network disk does not.

- **100 million**: memory of 64 GB holds the indexes ({size(hundred * LEDGER_INDEX_BYTES.value)}). Nothing else to change.
- **A billion**: {size(thousand * LEDGER_INDEX_BYTES.value)} of indexes. 256 GB of memory and NVMe disks; or keep fewer: 30 days at
  {thousand / 30 / DAY_S:,.0f} a second are a billion. `autovacuum` needs hours for a pass over the ledger, so let it be often
  and not held back (`autovacuum_vacuum_cost_limit = 2000`). A dump takes as long as reading all of it; use the physical backup of
  [Backup](backup.md).

"""


def _beyond() -> str:
    return f"""## What to change at each rate

| | 1,000/s | 10,000/s | 100,000/s |
| --- | --- | --- | --- |
| machines | one of two cores; two for availability | PostgreSQL with {math.ceil(cores(10_000, POSTGRES_MS.value) / USABLE)} cores or more for itself; {math.ceil(cores(10_000, RECEIVER_MS.value + WORKER_MS.value) / USABLE)} cores for the rest | ten installations of 10,000/s |
| receivers | 2 | {processes(10_000, RECEIVER_MS.value)}, behind a proxy | {processes(100_000, RECEIVER_MS.value)} |
| processes of workers | 2 (the default) | {processes(10_000, WORKER_MS.value)}, and more for processors that wait | {processes(100_000, WORKER_MS.value)} |
| `max_connections` | 100 (the default) | 100 (the default) | 100 each |
| `max_wal_size`, `min_wal_size` | {size(2 * 1_000 * WAL_BYTES.value * CHECKPOINT_S)} | {size(2 * 10_000 * WAL_BYTES.value * CHECKPOINT_S)} | likewise, each |
| disks | one SSD | NVMe; the log on one of its own | likewise, each |
| `INGEST_RELAY_BATCH` | 2,000 | 20,000 | likewise, each |
| retention | any | bodies by day; events for ever, or split further | likewise, each |
| metrics | as shipped | as shipped | one Prometheus; the label `job` of each installation |

100,000 a second in one PostgreSQL would be {cores(100_000, POSTGRES_MS.value):.0f} busy cores by arithmetic, {size(100_000 * WAL_BYTES.value)} of log
a second and {size(100_000 * STORED_BYTES.value * DAY_S)} a day. Nobody has shown here that its locks and its one log bear that, so plan with several.

## Several databases

An event is named by its source and the sender's id. So whatever keeps a **source** in one database keeps every promise: give each
installation its own database, Redis and processes, and let the proxy send `/webhooks/SLUG` to the installation that has
the source. One sender that is too much for one database gets several endpoints (one for each shop or number, as most senders
let you), each a described source of its own in another installation. Do not spread one endpoint over several
databases: the sender's repetition could come to another one, and be an event there once more.

Each installation has its own console, alerts and commands. Nothing adds them up but Prometheus.
"""


def _table(rows: Sequence[Row]) -> str:
    head = " | ".join(f"{rate:,}/s" for rate in RATES)
    lines = [f"| | {head} |", f"| --- |{' --- |' * len(RATES)}"]
    lines += [f"| {what} | {' | '.join(number(rate) for rate in RATES)} |" for what, number in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
