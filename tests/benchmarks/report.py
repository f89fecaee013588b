"""The benchmark's rows as lines, tables and a drawing."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any
from urllib.parse import unquote_plus

from tests.benchmarks.answers import Answers
from tests.benchmarks.console import Waited
from tests.benchmarks.endurance import Endurance, Second
from tests.benchmarks.gaps import Gap
from tests.benchmarks.idle import BUDGET, Idle
from tests.benchmarks.lag import Lag
from tests.benchmarks.parts import Drain, Stored
from tests.benchmarks.plans import Cost
from tests.benchmarks.price import BUDGETS, Price
from tests.benchmarks.retention import Figure
from tests.benchmarks.stored import Timed
from tests.benchmarks.sustained import Lease

Found = Mapping[str, Sequence[Any]]
Table = list[list[str]]


def line(row: Any) -> str:
    """A row in a line, while the benchmark runs."""
    match row:
        case Answers(offered=None):
            return (
                f"{row.subject}: {row.connections} connections, {row.body_bytes:,} B: "
                f"{row.result.rate:,.0f} answers/s, p50 {row.result.p50:.1f} ms, "
                f"p95 {row.result.p95:.1f}; us of CPU each: {_parts(row.cpu_us)}"
            )
        case Answers():
            return (
                f"{row.subject}: {row.offered:,.0f}/s offered: p50 {row.result.p50:.1f} ms, "
                f"p95 {row.result.p95:.1f}, p99 {row.result.p99:.1f}, worst {row.result.worst:.1f}"
            )
        case Drain():
            return (
                f"{row.subject}, {row.workers} worker: {row.drained.events:,} events at "
                f"{row.drained.rate:,.0f}/s; us of CPU each: {_parts(row.cpu_us)}"
            )
        case Lease():
            return f"sustained: {row.rate:,.0f}/s, lag at most {max(row.lags_s, default=0):.2f} s"
        case Endurance():
            return f"endurance: {row.held.rate:,.0f}/s, {_answered(row)}"
        case Waited():
            cold = "" if row.cold_ms is None else f"{row.cold_ms:.0f} ms cold, "
            partly = ", read partly" if row.is_partial else ""
            return f"{row.path}: {cold}{row.warm_ms:.1f} ms warm{partly}"
        case Idle():
            return f"idle, {row.kind}: {row.percent:.2f} % of a core"
        case Figure():
            return f"{row.what}: {row.value:,.2f} {row.unit}"
        case _:
            return str(row)


def plain(row: Any) -> dict[str, Any]:
    """A row for JSON."""
    return dataclasses.asdict(row)


def markdown(found: Found, machine: str) -> str:
    """The tables, with a line on the machine."""
    tables: dict[str, Callable[[Sequence[Any]], Table]] = {
        "answers": _answers,
        "pgbench": _figures,
        "cores": _figures,
        "latency": _latency,
        "drain": _drains,
        "own": _drains,
        "lag": _lags,
        "sustained": _sustained,
        "endurance": _endured,
        "price": _prices,
        "idle": _idle,
        "plans": _plans,
        "parked": _timed,
        "order": _timed,
        "limits": _timed,
        "gaps": _gaps,
        "scaling": _scaling,
        "stored": _stored,
        "console": _waited,
        "retention": _figures,
    }
    parts = [f"On {machine}; client included.\n"]
    for name, rows in found.items():
        parts.append(f"### {name}\n\n{_table(tables[name](rows))}\n")
    return "\n".join(parts)


def plot(found: Found) -> str:
    """The rates of answers and drains as bars, SVG."""
    bars = [
        *(("durable answers/s, 64 connections", *each) for each in _answer_rates(found)),
        *(("waiting events worked on/s", *each) for each in _drain_rates(found)),
    ]
    height = 30 + 26 * len(bars) + 30
    longest: dict[str, float] = defaultdict(float)
    for title, _, rate in bars:
        longest[title] = max(longest[title], rate)
    drawn, y, before = [], 10, ""
    for title, subject, rate in bars:
        if title != before:
            y += 18
            drawn.append(f'<text x="8" y="{y}" font-weight="bold">{title}</text>')
            y, before = y + 8, title
        width = max(1.0, 440 * rate / longest[title])
        colour = "#2563eb" if subject == "ours" else "#94a3b8"
        drawn.append(
            f'<text x="112" y="{y + 14}" text-anchor="end">{subject}</text>'
            f'<rect x="120" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>'
            f'<text x="{126 + width:.1f}" y="{y + 14}">{rate:,.0f}</text>'
        )
        y += 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height + 20}"'
        ' font-family="system-ui, sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(drawn)}</svg>\n'
    )


def _answer_rates(found: Found) -> list[tuple[str, float]]:
    rows = [
        row for row in found.get("answers", ()) if row.connections == 64 and row.body_bytes == 300
    ]
    return _medians((row.subject, row.result.rate) for row in rows)


def _drain_rates(found: Found) -> list[tuple[str, float]]:
    return _medians((row.subject, row.drained.rate) for row in found.get("drain", ()))


def _medians(pairs: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for subject, rate in pairs:
        grouped[subject].append(rate)
    return [(subject, median(rates)) for subject, rates in grouped.items()]


def _answers(rows: Sequence[Answers]) -> Table:
    grouped: dict[tuple[int, int], dict[str, list[Answers]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        grouped[row.connections, row.body_bytes][row.subject].append(row)
    table = [["connections", "body", "subject", "answers/s", "spread", "p50", "p95", "ours is"]]
    for (connections, size), subjects in grouped.items():
        rates = {name: median(r.result.rate for r in runs) for name, runs in subjects.items()}
        for name, runs in subjects.items():
            table.append(
                [
                    str(connections),
                    f"{size:,} B",
                    name,
                    f"{rates[name]:,.0f}",
                    _spread(run.result.rate for run in runs),
                    f"{median(run.result.p50 for run in runs):.1f} ms",
                    f"{median(run.result.p95 for run in runs):.1f} ms",
                    "" if name == "ours" else f"{rates.get('ours', 0) / rates[name]:.2f} x",
                ]
            )
    return table


def _latency(rows: Sequence[Answers]) -> Table:
    table = [["offered", "subject", "p50", "p95", "p99", "worst"]]
    for row in sorted(rows, key=lambda each: (each.offered or 0, each.subject)):
        figures = (row.result.p50, row.result.p95, row.result.p99, row.result.worst)
        table.append(
            [f"{row.offered:,.0f}/s", row.subject, *(f"{figure:.1f} ms" for figure in figures)]
        )
    return table


def _drains(rows: Sequence[Drain]) -> Table:
    grouped: dict[str, list[Drain]] = defaultdict(list)
    for row in rows:
        grouped[row.subject].append(row)
    rates = {name: median(run.drained.rate for run in runs) for name, runs in grouped.items()}
    table = [["subject", "events", "events/s", "spread", "CPU an event", "ours is"]]
    for name, runs in grouped.items():
        ratio = rates.get("ours", 0.0) / rates[name]
        ahead = "" if name == "ours" or not ratio else f"{ratio:.1f} x"
        table.append(
            [
                name,
                f"{runs[0].drained.events:,}",
                f"{rates[name]:,.0f}",
                _spread(run.drained.rate for run in runs),
                f"{median(sum(run.cpu_us.values()) for run in runs):,.0f} us",
                ahead,
            ]
        )
    return table


def _lags(rows: Sequence[Lag]) -> Table:
    return [
        ["offered", "p50", "p99"],
        *([f"{row.rate:,.0f}/s", f"{row.p50:.0f} ms", f"{row.p99:.0f} ms"] for row in rows),
    ]


def _sustained(rows: Sequence[Lease]) -> Table:
    table = [["events/s", "lag at most", "p95 of the answer"]]
    for row in rows:
        p95 = "-" if row.result is None else f"{row.result.p95:.1f} ms"
        table.append([f"{row.rate:,.0f}", f"{max(row.lags_s, default=0.0):.2f} s", p95])
    return table


def _endured(rows: Sequence[Endurance]) -> Table:
    table = [
        ["a second", "of verify only", "seconds", "PostgreSQL", "answers", "memory before, after"]
    ]
    for row in rows:
        memory = ", ".join(
            f"{kind} {before:,.0f}, {after:,.0f}"
            for kind, (before, after) in row.memory_mib.items()
        )
        waiting = ", ".join(f"{mib:,.1f}" for mib in row.waiting_mib)
        seconds = 0.0 if row.held.result is None else row.held.result.seconds
        table.append(
            [
                f"{row.held.rate:,.0f}",
                f"{row.of_verify_only:.2f}",
                f"{seconds:,.0f}",
                ", ".join(row.settings) or "defaults",
                _answered(row),
                f"{memory} MiB; what is not admitted {waiting} MiB",
            ]
        )
        table += [
            [
                "",
                "",
                f"second {second.at}",
                "",
                _of_second(second),
                ", ".join(second.beside),
            ]
            for second in row.worst
        ]
    return table


def _of_second(second: Second) -> str:
    answers = f"p99 {second.p99_ms:.1f} ms, worst {second.worst_ms:.1f}"
    return f"{answers}, lag {second.lag_s:.2f} s"


def _answered(row: Endurance) -> str:
    """Percentiles of the answers, and the lag."""
    result = row.held.result
    if result is None:
        return "not held"
    return (
        f"p50 {result.p50:.1f} ms, p99 {result.p99:.1f}, p99.9 {result.p999:.1f}, "
        f"worst {result.worst:.1f}, lag at most {max(row.held.lags_s, default=0):.2f} s"
    )


def _prices(rows: Sequence[Price]) -> Table:
    table = [["per event", "figure", "budget"]]
    for row in rows:
        calls, cpu = row.system_calls, row.cpu_s
        ours_s = sum(seconds for kind, seconds in cpu.items() if kind != "client")
        table += [
            _against("SQL statements", row.statements, "statements"),
            _against("pages dirtied", row.pages_dirtied, "pages_dirtied"),
            _against("bytes of write-ahead log", row.wal_bytes, "wal_bytes"),
            ["Redis commands", f"{row.redis_commands:.3f}", ""],
            _against("Redis messages", row.redis_messages, "redis_messages"),
            *([f"system calls, {kind}", f"{count:.2f}", ""] for kind, count in calls.items()),
            _against("system calls", sum(calls.values()), "system_calls")
            if calls
            else ["system calls", "could not be counted", f"{BUDGETS['system_calls']:g}"],
            *([f"CPU per 1,000, {kind}", f"{seconds:.3f} s", ""] for kind, seconds in cpu.items()),
            _against("seconds of CPU per 1,000, without the client", ours_s, "cpu_s"),
            *([f"memory, {kind}", f"{mib:,.0f} MiB", ""] for kind, mib in row.memory_mib.items()),
        ]
    return table


def _against(what: str, figure: float, budget: str) -> list[str]:
    """A figure beside its budget."""
    exceeded = ", exceeded" if figure > BUDGETS[budget] else ""
    return [what, f"{figure:,.4g}", f"{BUDGETS[budget]:,g}{exceeded}"]


def _idle(rows: Sequence[Idle]) -> Table:
    return [
        ["with nothing to do", "of a core"],
        *([row.kind, f"{row.percent:.2f} %"] for row in rows),
        ["budget for all", f"{BUDGET:.2f} %"],
    ]


def _plans(rows: Sequence[Cost]) -> Table:
    states = list(dict.fromkeys(row.state for row in rows))
    grouped: dict[tuple[str, bool], dict[str, float]] = defaultdict(dict)
    for row in rows:
        grouped[row.statement, row.is_prepared][row.state] = row.median_us
    table = [["us of PostgreSQL's CPU an event", *states, "worst to best"]]
    for (statement, is_prepared), taken in sorted(grouped.items(), key=lambda item: not item[0][1]):
        figures = [f"{taken[state]:,.0f}" if state in taken else "-" for state in states]
        ratio = max(taken.values()) / max(min(taken.values()), 1e-3)
        how = "" if is_prepared else ", not prepared"
        table.append([statement + how, *figures, f"{ratio:.2f}"])
    return table


def _gaps(rows: Sequence[Gap]) -> Table:
    return [
        ["a signed body of 1 MB", "status", "others wait at most", "it waits"],
        *(
            [row.body, str(row.status), f"{row.gap_ms:.0f} ms", f"{row.answer_ms:.0f} ms"]
            for row in rows
        ),
    ]


def _scaling(rows: Sequence[Drain | Answers]) -> Table:
    table = [["what", "rate", "CPU"]]
    receivers = 0
    for row in rows:
        if isinstance(row, Drain):
            what, rate = f"{row.workers} worker(s)", row.drained.rate
        else:
            receivers += 1
            what, rate = f"{receivers} receiver(s)", row.result.rate
        table.append([what, f"{rate:,.0f}/s", _parts(row.cpu_us)])
    return table


def _stored(rows: Sequence[Stored | Timed]) -> Table:
    table = [["what", "empty", "with", "ratio, or worst"]]
    for row in rows:
        if isinstance(row, Stored):
            ratio = f"{row.after / row.before:.2f}"
            table.append([row.what, f"{row.before:,.0f}", f"{row.after:,.0f}", ratio])
        else:
            worst = f"{row.worst_ms:.1f} ms"
            table.append([row.what, "", f"{row.median_ms:.1f} ms", worst])
    return table


def _waited(rows: Sequence[Waited]) -> Table:
    return [
        ["page", "cold", "warm", "worst of them", "says how far it read"],
        *(
            [
                f"`{unquote_plus(row.path)}`",
                "" if row.cold_ms is None else f"{row.cold_ms:.0f} ms",
                f"{row.warm_ms:.1f} ms",
                f"{row.worst_ms:.0f} ms",
                "yes" if row.is_partial else "",
            ]
            for row in rows
        ),
    ]


def _figures(rows: Sequence[Figure]) -> Table:
    return [
        ["", "value", ""],
        *([row.what, f"{row.value:,.2f}", row.unit] for row in rows),
    ]


def _timed(rows: Sequence[Timed]) -> Table:
    return [
        ["what", "median", "worst"],
        *([row.what, f"{row.median_ms:.1f} ms", f"{row.worst_ms:.1f} ms"] for row in rows),
    ]


def _spread(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{min(listed):,.0f} to {max(listed):,.0f}"


def _parts(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {figure:,.0f}" for kind, figure in figures.items())


def _table(rows: Table) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
