"""The pictures of a calibration in the order of the report, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import ndtri

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.report.data_pictures import data_pictures
from bilevel.calibrate.report.fit_pictures import ensemble_pictures, profile_pictures, start_pictures, strength_pictures
from bilevel.calibrate.report.picture import Drawing, Picture
from bilevel.calibrate.report.result_plots import (
    correlation_figure,
    distribution_figure,
    misfit_figure,
    quantiles_figure,
    residuals_figure,
    traces_figure,
)
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.statistics.state_deviations import state_deviations
from bilevel.calibrate.study.schema import PlotSection
from bilevel.report import BilevelError

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
    return [
        Picture(p[0].title, tuple(f.drawing for f in p), " ".join(f.caption for f in p if f.caption)) for p in pairs
    ]


def residual_picture(result: CalibrationResult) -> Picture:
    """Weighted residuals against prediction, their distribution, and their quantiles against a normal one."""
    weighted = -result.evaluation.residual[: len(result.problem.fitted)]
    caption = "Residual = weight times (measured - model). Patterns say that the model misses something."
    drawings = (
        _against_prediction(result, weighted),
        partial(distribution_figure, weighted),
        partial(quantiles_figure, _normal_quantiles(len(weighted)), np.sort(weighted)),
    )
    return Picture("Residuals", drawings, caption)


def _against_prediction(result: CalibrationResult, weighted: np.ndarray) -> Drawing:
    problem = result.problem
    fitted = problem.fitted.numpy()
    groups, one_unit = [], len({g.units for g in result.groups}) == 1
    for experiment, group, rows in problem.groups:
        members = np.nonzero(np.isin(fitted, rows))[0]
        convert = experiment.observations.units_of(group).conversion
        predicted = convert.inverse(result.evaluation.prediction[fitted[members]]) if one_unit else members + 1
        groups.append((predicted, weighted[members]))
    return partial(residuals_figure, groups, "model" if one_unit else "fitted row", len(fitted))


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
    phi = np.array([i.evaluation.phi for i in result.iterations])
    path = [result.problem.parameters.natural(torch.as_tensor(i.evaluation.t)) for i in result.iterations]
    labels = [parameter.label for parameter in result.problem.parameters.free[:12]]
    traces = [np.array([float(point[label].mean()) for point in path]) for label in labels]
    ratios = [values / (values[-1] or 1.0) for values in traces]
    fields = any(p.start.ndim for p in result.problem.parameters.free)
    caption = "Fields are shown by their mean." if fields else ""
    return [Picture("The way there", (partial(misfit_figure, phi), partial(traces_figure, labels, ratios)), caption)]


def correlation_pictures(result: CalibrationResult) -> list[Picture]:
    """The correlation matrix, if there is anything to correlate."""
    found = result.statistics
    if found is None or found.correlation is None or len(found.free_labels) < 2:
        return []
    drawing = partial(correlation_figure, found.free_labels, found.correlation)
    caption = "Near +1 or -1: the data see mostly a combination of the two."
    return [Picture("Correlation of the estimates", (drawing,), caption)]
