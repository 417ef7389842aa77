"""How well the fitted parameters predict: standard deviations and intervals of all rows, those of weight 0 included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.information import information


@dataclass(frozen=True)
class Forecasts:
    """Of the predictions (n,), in the model's units: what the parameters' uncertainty makes of them, without new noise."""

    std: np.ndarray
    lower95: np.ndarray
    upper95: np.ndarray


def forecasts(problem: CalibrationProblem, evaluation: Evaluation, noise: Noise) -> Forecasts:
    """By linear theory at an evaluated point that has a Jacobian; costs another one where rows have no say.

    Infinite where a prediction depends on what the data do not determine.
    """
    assert evaluation.jacobian is not None
    informed = information(problem, evaluation, noise)
    slope = problem.misfit.slope(torch.as_tensor(evaluation.prediction)).numpy()
    slopes = np.zeros((len(slope), len(evaluation.t)))
    fitted = problem.fitted.numpy()
    silent = ~(
        np.abs(slope) > 0
    )  # not fitted, one of several in a residual, or censored so far that its residual is flat
    slopes[fitted] = evaluation.jacobian[: len(fitted)] / np.where(silent, 1.0, slope)[fitted, None]
    if silent.any():
        slopes[silent] = problem.predictions_at(evaluation.t, silent)[1]
    std = np.sqrt(informed.variances(slopes))
    half = informed.level.quantile * std
    return Forecasts(std, evaluation.prediction - half, evaluation.prediction + half)
