"""The pictures of a calibration, as matplotlib figures that no window system knows of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from bilevel.calibrate.problem import Experiment
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.study.schema import PlotSection

COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5", "#9a6700", "#e03e3e", "#4f5b66")
_MANY = 400


@dataclass(frozen=True)
class Picture:
    """Figures that belong together (side by side where there is room), with their title and caption."""

    title: str
    figures: tuple[Figure, ...]
    caption: str = ""


def data_pictures(result: CalibrationResult, plot: PlotSection) -> list[Picture]:
    """Data against model, one picture per experiment; maps where the data lie in a plane."""
    pictures = []
    for experiment in result.problem.experiments:
        table = experiment.observations
        if plot.x is None and {"x", "y"} <= set(table.columns) and len(table) > 50:
            pictures += _maps(result, experiment)
        else:
            pictures.append(_curves(result, experiment, plot))
    return pictures


def _curves(result: CalibrationResult, experiment: Experiment, plot: PlotSection) -> Picture:
    abscissa = _Abscissa.of(experiment, plot)
    figure, (above, below) = _figure(2, 1, 5.4, sharex=True, height_ratios=[3, 1])
    groups = [(group, rows) for e, group, rows in result.problem.groups if e is experiment]
    for k, (group, rows) in enumerate(groups):
        convert = experiment.observations.units_of(group).conversion
        x = abscissa.values[experiment.observations.rows(group).numpy()]
        data, model = (convert.inverse(v[rows]) for v in (result.problem.value.numpy(), result.evaluation.prediction))
        order, colour = np.argsort(x, kind="stable"), COLOURS[k % len(COLOURS)]
        marker = {"ms": 4.5 if len(x) <= _MANY else 2, "alpha": 0.9 if len(x) <= _MANY else 0.4}
        above.plot(
            x, data, "o", mfc="white", color=colour, label=f"{group}, measured" if len(groups) <= 8 else None, **marker
        )
        above.plot(
            x[order], model[order], "-", color=colour, lw=1.8, label=f"{group}, model" if len(groups) <= 8 else None
        )
        below.plot(x, data - model, "o", color=colour, **marker)
    units = {experiment.observations.units_of(group).name for group, _ in groups}
    unit = f" [{units.pop()}]" if len(units) == 1 and "" not in units else ""
    above.set_ylabel("value" + unit)
    below.set_ylabel("measured - model")
    below.axhline(0, color="#888888", lw=0.8)
    below.set_xlabel(abscissa.label)
    if abscissa.log:
        _logarithmic(below, abscissa.values)
    if len(groups) <= 8:
        above.legend(fontsize=8, frameon=False)
    name = "" if len(result.problem.experiments) == 1 else f": {experiment.name}"
    return Picture(
        f"Data against model{name}",
        (figure,),
        "Circles are measured, lines are the calibrated model; below, what is left.",
    )


def _maps(result: CalibrationResult, experiment: Experiment) -> list[Picture]:
    table, pictures = experiment.observations, []
    for e, group, rows in result.problem.groups:
        if e is not experiment:
            continue
        units, own = table.units_of(group), table.rows(group).numpy()
        data, model = (
            units.conversion.inverse(v[rows]) for v in (result.problem.value.numpy(), result.evaluation.prediction)
        )
        x, y = (table.columns[c].numpy()[own] for c in ("x", "y"))
        figure, axes = _figure(3, 1, 6.6, sharex=True)
        low, high = float(min(data.min(), model.min())), float(max(data.max(), model.max()))
        spread = float(np.quantile(np.abs(data - model), 0.98)) or 1.0
        panels = [("measured", data, "viridis", low, high), ("model", model, "viridis", low, high)]
        panels.append(("measured - model", data - model, "RdBu_r", -spread, spread))
        for axis, (name, values, colours, least, most) in zip(axes, panels):
            points = axis.scatter(
                x, y, c=values, s=6, cmap=colours, vmin=least, vmax=most, rasterized=True, linewidths=0
            )
            axis.set_aspect("equal")
            axis.set_title(name, fontsize=9)
            figure.colorbar(points, ax=axis, label=units.name, shrink=0.9)
        pictures.append(
            Picture(
                f"Data against model: {result.problem.group_label(e, group)}",
                (figure,),
                "Positions in the model's units.",
            )
        )
    return pictures


def residual_picture(result: CalibrationResult) -> Picture:
    """Weighted residuals against prediction, their distribution, and their quantiles against a normal one."""
    weighted = -result.evaluation.residual[: len(result.problem.fitted)]
    count, bins = _figure(1, 1, 3.0, width=4.0)
    bins.hist(weighted, bins="auto" if len(weighted) > 20 else 8, color=COLOURS[0], alpha=0.85)
    bins.set(xlabel="weighted residual", ylabel="count")
    caption = "Residual = weight times (measured - model). Patterns say that the model misses something."
    return Picture("Residuals", (_against_prediction(result, weighted), count, _against_normal(weighted)), caption)


def _against_prediction(result: CalibrationResult, weighted: np.ndarray) -> Figure:
    problem = result.problem
    fitted = problem.fitted.numpy()
    figure, axis = _figure(1, 1, 3.0, width=4.0)
    many = len(fitted) > _MANY
    for k, (experiment, group, rows) in enumerate(problem.groups):
        members = np.nonzero(np.isin(fitted, rows))[0]
        predicted = experiment.observations.units_of(group).conversion.inverse(
            result.evaluation.prediction[fitted[members]]
        )
        colour = COLOURS[k % len(COLOURS)]
        axis.scatter(predicted, weighted[members], s=3 if many else 14, color=colour, alpha=0.7, rasterized=many)
    axis.axhline(0, color="#888888", lw=0.8)
    axis.set(xlabel="model", ylabel="weighted residual")
    return figure


def _against_normal(weighted: np.ndarray) -> Figure:
    figure, axis = _figure(1, 1, 3.0, width=4.0)
    if len(weighted) > 2:
        (theory, ordered), (slope, shift, _) = stats.probplot(weighted)
        axis.plot(theory, ordered, "o", ms=3, color=COLOURS[0], rasterized=len(weighted) > _MANY)
        axis.plot(theory, slope * theory + shift, "-", color=COLOURS[1])
    axis.set(xlabel="normal quantile", ylabel="residual quantile")
    return figure


def trace_picture(result: CalibrationResult) -> Picture | None:
    """phi and parameters over the outer iterations; None if there was only one point."""
    if len(result.iterations) < 2:
        return None
    misfit, axis = _figure(1, 1, 3.0, width=4.0)
    phi = np.array([i.evaluation.phi for i in result.iterations])
    axis.semilogy(np.where(phi > 0, phi, np.nan), "o-", ms=3, color=COLOURS[0])
    axis.set(xlabel="iteration", ylabel="phi")
    fields = any(p.start.ndim for p in result.problem.parameters.free)
    return Picture(
        "The way there", (misfit, _parameter_traces(result)), "Fields are shown by their mean." if fields else ""
    )


def _parameter_traces(result: CalibrationResult) -> Figure:
    figure, axis = _figure(1, 1, 3.0, width=4.0)
    path = [result.problem.parameters.natural(torch.as_tensor(i.evaluation.t)) for i in result.iterations]
    ratios = []
    for k, parameter in enumerate(result.problem.parameters.free[:12]):
        values = np.array([float(point[parameter.label].mean()) for point in path])
        ratios.append(values / (values[-1] or 1.0))
        style = {"color": COLOURS[k % len(COLOURS)], "ls": "-" if k < len(COLOURS) else "--", "label": parameter.label}
        axis.plot(ratios[-1], marker="o", ms=3, **style)
    axis.set(xlabel="iteration", ylabel="value / final value")
    every = np.concatenate(ratios)
    if (every > 0).all() and every.max() / every.min() > 20:
        axis.set_yscale("log")
    axis.legend(fontsize=7, frameon=False)
    return figure


def correlation_picture(result: CalibrationResult) -> Picture | None:
    """The correlation matrix; None if there is nothing to correlate."""
    if result.statistics is None or len(result.statistics.free_labels) < 2:
        return None
    labels, matrix = result.statistics.free_labels, result.statistics.correlation
    size = min(2.2 + 0.5 * len(labels), 7.0)
    figure, axis = _figure(1, 1, size, width=size + 1.2)
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    if len(labels) <= 12:
        for i, j in np.ndindex(matrix.shape):
            text = "-" if np.isnan(matrix[i, j]) else f"{matrix[i, j]:.2f}"
            axis.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color="white" if abs(matrix[i, j]) > 0.6 else "#222222",
            )
    if len(labels) <= 40:
        axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.grid(False)
    figure.colorbar(image, ax=axis, shrink=0.85)
    return Picture(
        "Correlation of the estimates", (figure,), "Near +1 or -1: the data see mostly a combination of the two."
    )


def calibration_pictures(result: CalibrationResult, plot: PlotSection) -> list[Picture]:
    """All pictures in the order of the report."""
    optional = [trace_picture(result), correlation_picture(result)]
    return [*data_pictures(result, plot), residual_picture(result), *(p for p in optional if p is not None)]


def model_pictures(result: CalibrationResult) -> list[Picture]:
    """The models' own pictures, at the calibrated parameters."""
    t = torch.as_tensor(result.evaluation.t)
    found = []
    for experiment in result.problem.experiments:
        figures = experiment.model.figures(result.problem.arguments(experiment, t))
        found += [Picture(f.title, (f.figure,), f.caption) for f in figures]
    return found


def _logarithmic(axis: Axes, values: np.ndarray) -> None:
    """A logarithmic horizontal axis whose labels are plain numbers and do not overlap."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    if values.max() / values.min() < 1e3:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")


@dataclass(frozen=True)
class _Abscissa:
    values: np.ndarray
    label: str
    log: bool

    @staticmethod
    def of(experiment: Experiment, plot: PlotSection) -> _Abscissa:
        """The column asked for, else time, else the first column that varies within a group, else the row number."""
        table = experiment.observations
        first = next((c for c in ("time", *table.columns) if c in table.columns and _varies(experiment, c)), None)
        name = plot.x if plot.x in table.columns else first
        if name is None:
            return _Abscissa(np.arange(1, len(table) + 1), "row", False)
        units = table.column_units.get(name)
        values = table.columns[name].numpy()
        values = units.conversion.inverse(values) if units else values
        spread = bool(values.min() > 0 and values.max() / values.min() > 50)
        label = f"{name} [{units.name}]" if units and units.name else name
        return _Abscissa(values, label, spread if plot.log is None else plot.log and bool(values.min() > 0))


def _varies(experiment: Experiment, column: str) -> bool:
    table = experiment.observations
    return any(len(torch.unique(table.columns[column][table.rows(group)])) > 1 for group in table.groups)


def _figure(
    rows: int,
    columns: int,
    height: float,
    *,
    width: float = 7.0,
    sharex: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(
        rows, columns, sharex=sharex, gridspec_kw={"height_ratios": height_ratios} if height_ratios else None
    )
    for axis in np.atleast_1d(axes).flat:
        axis.grid(True, color="#e6e6e6", lw=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_size(9)
        axis.yaxis.label.set_size(9)
        axis.title.set_size(9)
    return figure, axes
