"""How well the fitted parameters predict: standard deviations and intervals of all rows, those of weight 0 included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.linearisation import Linearisation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.noise import noise_level


@dataclass(frozen=True)
class Forecasts:
    """Of the predictions (n,), in the model's units: what the parameters' uncertainty makes of them, without new noise."""

    std: np.ndarray
    lower95: np.ndarray
    upper95: np.ndarray


def forecasts(problem: CalibrationProblem, evaluation: Evaluation, noise: Noise) -> Forecasts:
    """By linear theory at an evaluated point that has a Jacobian; costs another one where rows have weight 0.

    Infinite where a prediction depends on what the data do not determine.
    """
    assert evaluation.jacobian is not None
    level = noise_level(problem, evaluation, noise)
    linear = Linearisation(evaluation, problem.parameters, level.scale)
    weight = problem.weight.numpy()
    slopes = np.zeros((len(weight), len(evaluation.t)))
    fitted = problem.fitted.numpy()
    slopes[fitted] = evaluation.jacobian[: len(fitted)] / weight[fitted, None]
    if len(fitted) < len(weight):
        slopes[weight == 0] = problem.forecast_jacobian(evaluation.t)
    std = np.sqrt(linear.variances(slopes, level.spread))
    half = level.quantile * std
    return Forecasts(std, evaluation.prediction - half, evaluation.prediction + half)
