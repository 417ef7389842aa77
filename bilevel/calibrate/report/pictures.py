"""The pictures of a calibration in the order of the report, each drawn when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import ndtri

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.report.axes import COLOURS, MANY, new_figure, plain
from bilevel.calibrate.report.data_pictures import data_pictures
from bilevel.calibrate.report.fit_pictures import ensemble_pictures, profile_pictures, start_pictures, strength_pictures
from bilevel.calibrate.report.picture import Picture
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.statistics.state_deviations import state_deviations
from bilevel.calibrate.study.schema import PlotSection
from bilevel.report import BilevelError

if TYPE_CHECKING:  # it takes most of a second to load
    from matplotlib.figure import Figure

EXPERIMENTS = 24
"""Experiments that get pictures of their data."""


@dataclass(frozen=True)
class Pictures:
    """All pictures of a result."""

    result: CalibrationResult
    plot: PlotSection

    def all(self) -> Iterator[tuple[str, Callable[[], Sequence[Picture]]]]:
        """What each is called when it fails, and the function that draws it."""
        result, experiments = self.result, self.result.problem.experiments[:EXPERIMENTS]
        for e in experiments:
            yield f"the data of experiment '{e.name}'", partial(data_pictures, result, e, self.plot)
        yield "the picture of the residuals", lambda: [residual_picture(result)]
        yield "the picture of the way there", lambda: trace_pictures(result)
        yield "the picture of the correlations", lambda: correlation_pictures(result)
        yield "the picture of the starts", lambda: start_pictures(result)
        yield "the picture of the smoothing", lambda: strength_pictures(result)
        yield "the picture of the ensemble", lambda: ensemble_pictures(result)
        for profile in result.profiles:
            yield f"the profile of {profile.label}", partial(profile_pictures, profile)
        for e in experiments:
            yield f"a picture of the model of experiment '{e.name}'", partial(model_pictures, result, e)


def model_pictures(result: CalibrationResult, experiment: Experiment) -> list[Picture]:
    """A model's own pictures, at the calibrated parameters; fields with their standard deviations beside them."""
    arguments = result.problem.arguments(experiment, torch.as_tensor(result.evaluation.t))
    figures = experiment.model.figures(arguments)
    try:
        deviations = state_deviations(result, experiment) if figures else {}
    except BilevelError:  # said where they are written
        deviations = {}
    beside = {f.title: f for f in experiment.model.deviation_figures(deviations)} if deviations else {}
    pairs = [[f, *([beside[f.title]] if f.title in beside else [])] for f in figures]
    return [Picture(p[0].title, tuple(f.figure for f in p), " ".join(f.caption for f in p if f.caption)) for p in pairs]


def residual_picture(result: CalibrationResult) -> Picture:
    """Weighted residuals against prediction, their distribution, and their quantiles against a normal one."""
    weighted = -result.evaluation.residual[: len(result.problem.fitted)]
    count, bins = new_figure(1, 1, 3.0, width=4.0)
    # "auto" asks for millions of bins where one residual lies far out
    bins.hist(weighted, bins=int(np.clip(2 * len(weighted) ** (1 / 3), 8, 60)), color=COLOURS[0], alpha=0.85)
    bins.locator_params(axis="x", nbins=5)
    bins.set(xlabel="weighted residual", ylabel="count")
    caption = "Residual = weight times (measured - model). Patterns say that the model misses something."
    return Picture("Residuals", (_against_prediction(result, weighted), count, _against_normal(weighted)), caption)


def _against_prediction(result: CalibrationResult, weighted: np.ndarray) -> Figure:
    problem = result.problem
    fitted = problem.fitted.numpy()
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    many, one_unit = len(fitted) > MANY, len({g.units for g in result.groups}) == 1
    for k, (experiment, group, rows) in enumerate(problem.groups):
        members = np.nonzero(np.isin(fitted, rows))[0]
        convert = experiment.observations.units_of(group).conversion
        predicted = convert.inverse(result.evaluation.prediction[fitted[members]]) if one_unit else members + 1
        colour = COLOURS[k % len(COLOURS)]
        axis.scatter(predicted, weighted[members], s=3 if many else 14, color=colour, alpha=0.7, rasterized=many)
    axis.axhline(0, color="#888888", lw=0.8)
    axis.set(xlabel="model" if one_unit else "fitted row", ylabel="weighted residual")
    return figure


def _against_normal(weighted: np.ndarray) -> Figure:
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    if len(weighted) > 2:
        theory, ordered = _normal_quantiles(len(weighted)), np.sort(weighted)
        slope, shift = np.polyfit(theory, ordered, 1)
        axis.plot(theory, ordered, "o", ms=3, color=COLOURS[0], rasterized=len(weighted) > MANY)
        axis.plot(theory, slope * theory + shift, "-", color=COLOURS[1])
    axis.set(xlabel="normal quantile", ylabel="residual quantile")
    return figure


def _normal_quantiles(count: int) -> np.ndarray:
    """Normal quantiles (n,) of the medians of n ordered uniform numbers (Filliben 1975, Technometrics 17, 111)."""
    medians = (np.arange(1, count + 1) - 0.3175) / (count + 0.365)
    medians[-1] = 0.5 ** (1.0 / count)
    medians[0] = 1.0 - medians[-1]
    return np.asarray(ndtri(medians))


def trace_pictures(result: CalibrationResult) -> list[Picture]:
    """phi and parameters over the outer iterations, if there was more than one point."""
    if len(result.iterations) < 2:
        return []
    misfit, axis = new_figure(1, 1, 3.0, width=4.0)
    phi = np.array([i.evaluation.phi for i in result.iterations])
    axis.semilogy(np.where(phi > 0, phi, np.nan), "o-", ms=3, color=COLOURS[0])
    axis.set(xlabel="iteration", ylabel="phi")
    fields = any(p.start.ndim for p in result.problem.parameters.free)
    caption = "Fields are shown by their mean." if fields else ""
    return [Picture("The way there", (misfit, _parameter_traces(result)), caption)]


def _parameter_traces(result: CalibrationResult) -> Figure:
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    path = [result.problem.parameters.natural(torch.as_tensor(i.evaluation.t)) for i in result.iterations]
    ratios = []
    for k, parameter in enumerate(result.problem.parameters.free[:12]):
        values = np.array([float(point[parameter.label].mean()) for point in path])
        ratios.append(values / (values[-1] or 1.0))
        style = {
            "color": COLOURS[k % len(COLOURS)],
            "ls": "-" if k < len(COLOURS) else "--",
            "label": plain(parameter.label),
        }
        axis.plot(ratios[-1], marker="o", ms=3, **style)
    axis.set(xlabel="iteration", ylabel="value / final value")
    every = np.concatenate(ratios)
    if (every > 0).all() and every.max() / every.min() > 20:
        axis.set_yscale("log")
    axis.legend(fontsize=7, frameon=False)
    return figure


def correlation_pictures(result: CalibrationResult) -> list[Picture]:
    """The correlation matrix, if there is anything to correlate."""
    if result.statistics is None or result.statistics.correlation is None or len(result.statistics.free_labels) < 2:
        return []
    labels, matrix = [plain(label) for label in result.statistics.free_labels], result.statistics.correlation
    size = min(2.2 + 0.5 * len(labels), 7.0)
    figure, axis = new_figure(1, 1, size, width=size + 1.2)
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    if len(labels) <= 12:
        for i, j in np.ndindex(matrix.shape):
            text = "-" if np.isnan(matrix[i, j]) else f"{matrix[i, j]:.2f}"
            colour = "white" if abs(matrix[i, j]) > 0.6 else "#222222"
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    if len(labels) <= 40:
        axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.grid(False)
    figure.colorbar(image, ax=axis, shrink=0.85)
    caption = "Near +1 or -1: the data see mostly a combination of the two."
    return [Picture("Correlation of the estimates", (figure,), caption)]
