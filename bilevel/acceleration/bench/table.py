"""A report as plain text and as JSON."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict
from importlib.metadata import version

from bilevel.acceleration.bench.report import Report
from bilevel.acceleration.bench.statistics import Summary, Table

COLUMNS = (
    "method",
    "failed",
    "late",
    "s, lower",
    "median",
    "upper quartile",
    "speed-up",
    "wins",
    "pays after",
    "energies",
    "gradients",
    "Hv",
    "tangents",
    "factorised",
    "inferences",
    "fell back",
)
COUNTED = ("values", "residuals", "products", "tangents", "factorisations", "inferences")


def text(report: Report) -> str:
    """The tables as text: quartiles of seconds (failures at their budget), shares in percent, medians of counts.

    late: solved after the budget. fell back: their safeguard acted at least once.
    """
    lines = [
        f"family {report.family}, {report.threads} thread(s), residual {report.settings.tolerance:g} of the load's"
    ]
    lines += [f"tuned: {name} ({variant})" for name, variant in report.tuned.items()]
    lines += [f"dropped: {item.method}: {item.reason}" for item in report.dropped]
    for table in report.tables:
        lines += ["", table_text(table)]
    return "\n".join(lines)


def table_text(table: Table) -> str:
    """One table, with a verdict on each learned method below it."""
    best = table.best_classical
    rows = [COLUMNS, *(_row(table, summary) for summary in table.summaries)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    drawn = [
        "  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths))) for row in rows
    ]
    name = "none solves half of the instances" if best is None else best.method
    title = f"{table.title}: {table.instances} instances; best classical method: {name}"
    return "\n".join([title, *drawn, *_verdicts(table)])


def _row(table: Table, summary: Summary) -> tuple[str, ...]:
    against = table.against_best(summary)
    compared = ("-", "-") if against is None else (f"{against.speedup:.2f}", _percent(against.wins))
    paid = "-" if against is None or not summary.training_seconds else _solves(against.break_even)
    times = (f"{x:.3g}" for x in (summary.lower, summary.median, summary.upper))
    counted = (_number(summary.counts[name]) for name in COUNTED)
    shares = (_percent(summary.failures), _percent(summary.late))
    return (summary.method, *shares, *times, *compared, paid, *counted, _percent(summary.fallen_back))


def _verdicts(table: Table) -> list[str]:
    """One sentence for each learned method, a loss as plain as a win."""
    best, sentences = table.best_classical, []
    for summary in table.summaries:
        if not summary.learned:
            continue
        if best is None:
            said = (
                f"{summary.method} takes {summary.median:.3g} s where no classical method solves half of the instances"
            )
        else:
            said = f"{summary.method} {_verdict(table, summary, best)} (medians)"
        sentences.append(f"{said}; fails on {_percent(summary.failures)}")
    return sentences


def _verdict(table: Table, summary: Summary, other: Summary) -> str:
    speedup = table.against(summary, other).speedup
    if speedup >= 1.0:
        return f"wins: {speedup:.2f} times as fast as {other.method}"
    return f"LOSES: {1.0 / speedup:.2f} times the time of {other.method}"


def _solves(count: float) -> str:
    return "never" if math.isinf(count) else f"{count:.0f}"


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:g}"


def to_json(report: Report) -> str:
    """All trials and summaries, with versions and threads."""
    content = {
        "family": report.family,
        "threads": report.threads,
        "versions": {name: version(name) for name in ("bilevel", "torch", "numpy")}
        | {"python": platform.python_version()},
        "settings": {k: v for k, v in vars(report.settings).items() if k != "progress"},
        "tuned": report.tuned,
        "dropped": [asdict(item) for item in report.dropped],
        "tables": [
            {
                "title": table.title,
                "instances": table.instances,
                "summaries": [asdict(summary) for summary in table.summaries],
                "trials": [trial.to_record() for trial in table.trials],
            }
            for table in report.tables
        ],
    }
    return json.dumps(_plain(content), indent=1)


def _plain(value: object) -> object:
    """NaN and infinity have no place in JSON: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
