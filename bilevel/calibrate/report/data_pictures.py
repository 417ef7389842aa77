"""Data against model: curves by group, or maps where the data lie in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.report.axes import with_units
from bilevel.calibrate.report.data_plots import GroupCurves, ModelCurve, curves_figure, map_figure
from bilevel.calibrate.report.picture import Picture
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.study.schema import PlotSection

DRAWN = 2000
"""Rows of a group that are drawn; a page of a hundred thousand circles helps nobody and has 38 MB."""


def data_pictures(result: CalibrationResult, experiment: Experiment, plot: PlotSection) -> list[Picture]:
    """The pictures of one experiment: one for each unit, for different units share no axis."""
    table = experiment.observations
    groups = [(group, rows) for e, group, rows in result.problem.groups if e is experiment]
    if plot.x is None and {"x", "y"} <= set(table.columns) and len(table) > 50:
        return [_map(result, experiment, group, rows) for group, rows in groups]
    units = list(dict.fromkeys(table.units_of(group).name for group, _ in groups))
    return [
        _curves(
            result, experiment, plot, [g for g in groups if table.units_of(g[0]).name == unit], unit, len(units) > 1
        )
        for unit in units
    ]


def _curves(
    result: CalibrationResult,
    experiment: Experiment,
    plot: PlotSection,
    groups: list[tuple[str, np.ndarray]],
    unit: str,
    one_of_many: bool,
) -> Picture:
    abscissa = _Abscissa.of(experiment, plot)
    drawn = [_group(result, experiment, abscissa, group, rows) for group, rows in groups]
    positive = abscissa.values[abscissa.values > 0] if abscissa.log else None
    name = "" if len(result.problem.experiments) == 1 else f": {experiment.name}"
    name += f" [{unit or 'no units'}]" if one_of_many else ""
    caption = "Circles are measured, lines are the calibrated model; below, what is left."
    if result.forecasts is not None:
        caption += " Bands: 95 % intervals of the prediction, from the uncertainty of the parameters alone."
    thinned = any(group.rows > DRAWN for group in drawn)
    caption += f" Of long groups {DRAWN} rows are drawn; all are in the .rei.csv file." if thinned else ""
    drawing = partial(curves_figure, drawn, unit, abscissa.label, positive)
    return Picture(f"Data against model{name}", (drawing,), caption + abscissa.missing(plot))


def _group(
    result: CalibrationResult, experiment: Experiment, abscissa: _Abscissa, group: str, rows: np.ndarray
) -> GroupCurves:
    """A group as it is drawn: thinned, in the units of its readings."""
    table = experiment.observations
    own, convert = table.rows(group).numpy(), table.units_of(group).conversion
    x = abscissa.values[own]
    data, model = (convert.inverse(v[rows]) for v in (result.problem.value.numpy(), result.evaluation.prediction))
    band = None
    if (found := result.forecasts) is not None:
        band = [convert.inverse(v[rows]) for v in (found.lower95, found.upper95)]
    curves = []
    for curve in series(x, _keys(table, own, abscissa.name)):
        curve = _thin(abscissa.shown(x, curve))
        ends = None if band is None else (band[0][curve], band[1][curve])
        known = ends is not None and bool(np.isfinite(ends[1] - ends[0]).all())
        curves.append(ModelCurve(x[curve], model[curve], ends if known else None))
    some = _thin(abscissa.shown(x, np.argsort(x, kind="stable")))
    return GroupCurves(group, len(x), x[some], data[some], data[some] - model[some], curves)


def _keys(table: ObservationTable, rows: np.ndarray, abscissa: str) -> np.ndarray:
    """For each row of a group, what tells its curve from others: all columns and labels but the abscissa."""
    parts = [np.asarray(column)[rows] for name, column in table.columns.items() if name != abscissa]
    parts += [np.unique(np.array(texts)[rows], return_inverse=True)[1] for texts in table.labels.values()]
    return np.stack(parts, 1) if parts else np.zeros((len(rows), 0))


def series(x: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """The curves of a group, as row numbers: rows of equal keys, along their path or, where there is none, along x.

    A test that loads and unloads is one path; several tests one after the other are cut where x jumps back.
    """
    curves = [np.arange(len(x))]
    if keys.shape[1]:
        kinds, kind = np.unique(keys, axis=0, return_inverse=True)
        if 2 * len(kinds) <= len(x):  # else a column varies along the curve
            curves = [np.nonzero(kind.reshape(-1) == k)[0] for k in range(len(kinds))]
    return [part for curve in curves for part in _paths(x, curve)]


def _paths(x: np.ndarray, curve: np.ndarray) -> list[np.ndarray]:
    steps = np.diff(x[curve])
    signs = np.sign(steps[steps != 0])
    if np.count_nonzero(np.diff(signs)) > len(curve) / 4:
        return [curve[np.argsort(x[curve], kind="stable")]]
    width = np.ptp(x[curve]) if len(curve) else 0.0
    jumps = np.nonzero((np.abs(steps[1:]) > 0.5 * width) & (np.sign(steps[1:]) == -np.sign(steps[:-1])))[0] + 2
    return [curve[a:b] for a, b in pairwise([0, *jumps, len(curve)])]


def _thin(rows: np.ndarray) -> np.ndarray:
    """At most DRAWN of the rows, evenly, with both ends."""
    if len(rows) <= DRAWN:
        return rows
    return rows[np.linspace(0, len(rows) - 1, DRAWN).round().astype(int)]


def _map(result: CalibrationResult, experiment: Experiment, group: str, rows: np.ndarray) -> Picture:
    table = experiment.observations
    units, own = table.units_of(group), table.rows(group).numpy()
    data, model = (
        units.conversion.inverse(v[rows]) for v in (result.problem.value.numpy(), result.evaluation.prediction)
    )
    x, y = (np.asarray(table.columns[c])[own] for c in ("x", "y"))
    label = result.problem.group_label(experiment, group)
    drawing = partial(map_figure, x, y, data, model, units.name)
    return Picture(f"Data against model: {label}", (drawing,), "Positions in the model's units.")


@dataclass(frozen=True)
class _Abscissa:
    name: str
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
            return _Abscissa("", np.arange(1, len(table) + 1), "row", False)
        units = table.column_units.get(name)
        values = np.asarray(table.columns[name])
        values = units.conversion.inverse(values) if units else values
        spread = bool(values.min() > 0 and values.max() / values.min() > 50)
        log = spread if plot.log is None else plot.log and bool(values.max() > 0)
        return _Abscissa(name, values, with_units(name, units.name if units else ""), log)

    def shown(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that have a place on the axis."""
        return rows[x[rows] > 0] if self.log else rows

    def missing(self, plot: PlotSection) -> str:
        """What the caption says of values without a logarithm."""
        if plot.log and not self.log and self.name:
            return f" The axis is not logarithmic as asked, since no {self.name} is positive."
        count = int((self.values <= 0).sum()) if self.log else 0
        return f" Rows of which {self.name} is not positive are not drawn: {count}." if count else ""


def _varies(experiment: Experiment, column: str) -> bool:
    table = experiment.observations
    return any(np.ptp(np.asarray(table.columns[column])[table.rows(group).numpy()]) > 0 for group in table.groups)
