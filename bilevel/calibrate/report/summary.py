"""The end of a run in plain text: a parameter table, the misfit by group, and what a reader must not miss."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bilevel.calibrate.result import CalibrationResult, ParameterEstimate

ROWS = 30
"""Longer tables are cut in the text and in the report; case.par.csv has all rows."""


def number(value: float | None, digits: int = 5) -> str:
    """A number for people; "-" where it is unknown."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}g}"


def parameter_rows(estimates: Sequence[ParameterEstimate]) -> list[list[str]]:
    """Label, value, std, relative std, 95 % interval, units, remark; one row per entry."""
    rows = []
    for e in estimates:
        known = not math.isnan(e.lower95)
        relative = f"{100 * e.relative_std:.3g} %" if math.isfinite(e.relative_std) else "-"
        interval = f"{number(e.lower95, 4)} .. {number(e.upper95, 4)}" if known else "-"
        rows.append([e.label, number(e.value), number(e.std, 3), relative, interval, e.units, remark(e)])
    return rows


def remark(estimate: ParameterEstimate) -> str:
    """ "at upper bound 10", "fixed", "= 2 * k", or ""."""
    if estimate.at_bound:
        bound = estimate.upper if estimate.at_bound == "upper" else estimate.lower
        return f"at {estimate.at_bound} bound {number(bound)}"
    return "" if estimate.state == "free" else estimate.state


CORRELATED_HEADER = ["with correlated errors", "std", "95 % interval", "units", "times the std above"]


def correlated_rows(result: CalibrationResult) -> list[list[str]]:
    """Label, std, 95 % interval, units and factor where errors are correlated, [] where they are not."""
    return [
        [
            e.label,
            number(e.std_correlated, 3),
            f"{number(e.lower95_correlated, 4)} .. {number(e.upper95_correlated, 4)}",
            e.units,
            number(e.std_correlated / e.std if e.std else math.nan, 3),
        ]
        for e in result.estimates
        if not math.isnan(e.std_correlated)
    ]


def correlated_sentences(result: CalibrationResult) -> list[str]:
    """What the errors of each correlated group are worth."""
    found = None if result.statistics is None else result.statistics.correlated
    return [
        f"errors of {g.label}: neighbours correlate by {g.neighbours:.2f}, so that {g.rows} readings are worth {g.effective:.3g}"
        for g in (found.groups if found else [])
    ]


HEADER = ["parameter", "value", "std", "std/value", "95 % interval", "units", "remark"]


def summary(title: str, result: CalibrationResult) -> str:
    """The whole text."""
    rows = parameter_rows(result.estimates)
    cut = [] if len(rows) <= ROWS else [f"... and {len(rows) - ROWS} more in the .par.csv file"]
    beside = correlated_rows(result)
    groups = [
        [g.label, number(g.phi), f"{number(g.rmse, 4)} {g.units}".strip(), f"{g.fitted} of {g.rows}"]
        for g in result.groups
    ]
    if len(groups) > 1 and not math.isnan(result.rmse):
        units = result.groups[0].units
        groups.append(["all", number(result.phi - result.prior_phi), f"{number(result.rmse, 4)} {units}".strip(), ""])
    total = f"phi {number(result.phi, 6)}" + (
        f", of which priors {number(result.prior_phi)}" if result.prior_phi else ""
    )
    lines = [title, "=" * len(title), *result.verdicts, ""]
    lines += [*text_table(HEADER, rows[:ROWS]), *cut, ""]
    lines += [*correlated_sentences(result), *text_table(CORRELATED_HEADER, beside[:ROWS]), ""] if beside else []
    lines += [*text_table(["group", "phi", "rmse", "fitted rows"], groups), "", total + f", {result.seconds:.1f} s"]
    return "\n".join(lines)


def correlation_table(result: CalibrationResult) -> str:
    """The correlation matrix of the free entries, as text."""
    if result.statistics is None:
        return "no correlations: there are no statistics"
    labels = result.statistics.free_labels[:ROWS]
    if result.statistics.correlation is None:
        return "no correlations: there are too many parameters"
    matrix = result.statistics.correlation[:ROWS, :ROWS]
    rows = [[label, *(number(float(x), 3) for x in row)] for label, row in zip(labels, matrix)]
    return "\n".join(text_table(["correlation", *labels], rows))


def text_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    text = [["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()] for row in [header, *rows]]
    return [text[0][0], "  ".join("-" * w for w in widths), *(line[0] for line in text[1:])]
