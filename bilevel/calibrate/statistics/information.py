"""What each row of the Jacobian knows of the parameters, under whatever noise its group has.

An M-estimate has the covariance A^-1 B A^-1, with A the expected curvature of the loss and B the variance of its
derivative, the score (Huber 1981, section 7.6). Normal noise has B = s^2 A, and censored rows, whose loss is a
likelihood, B = A; what a robust loss makes of the data at hand is taken from the group's residuals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.linearisation import Linearisation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.noise import NoiseLevel, noise_level


@dataclass(frozen=True)
class Information:
    """linear: its Gram matrix is A. spread: B over A, one number, or one for each row (m,)."""

    level: NoiseLevel
    linear: Linearisation
    spread: float | np.ndarray

    def covariance(self, entries: np.ndarray) -> np.ndarray:
        """Of some entries of t (mask)."""
        return self.linear.covariance(entries, self.spread)

    def variances(self, slopes: np.ndarray) -> np.ndarray:
        """Of the quantities with the slopes (k, p) in t."""
        return self.linear.variances(slopes, self.spread)


def information(problem: CalibrationProblem, evaluation: Evaluation, noise: Noise) -> Information:
    """At an evaluated point that has a Jacobian."""
    level = noise_level(problem, evaluation, noise)
    if bool(problem.misfit.normal[problem.fitted].all()):
        return Information(level, Linearisation(evaluation, problem.parameters, level.scale), level.spread)
    assert evaluation.jacobian is not None
    curvature, score = _by_row(problem, evaluation, level)
    fitted = problem.fitted.numpy()
    stretch = problem.misfit.stretch(torch.as_tensor(evaluation.prediction)).numpy()[fitted]
    factor = np.divide(np.sqrt(curvature), stretch, out=np.zeros_like(stretch), where=stretch > 0)
    factor = np.concatenate([factor, np.ones(evaluation.priors)])
    residual = np.divide(evaluation.residual, factor, out=np.zeros_like(factor), where=factor > 0)
    informed = replace(evaluation, residual=residual, jacobian=factor[:, None] * evaluation.jacobian)
    spread = np.concatenate([score / level.scale**2, np.ones(evaluation.priors)])
    return Information(level, Linearisation(informed, problem.parameters, level.scale), spread)


def _by_row(problem: CalibrationProblem, evaluation: Evaluation, level: NoiseLevel) -> tuple[np.ndarray, np.ndarray]:
    """A (f,) and B / A (f,) of the fitted rows, in squares of their weights."""
    misfit, prediction = problem.misfit, torch.as_tensor(evaluation.prediction)
    curvature = misfit.curvature(prediction).numpy().copy()
    score = (misfit.residual(prediction) * misfit.stretch(prediction)).numpy()
    spread = np.ones_like(curvature)
    spread[misfit.normal.numpy()] = level.variance
    robust, fitted = misfit.robust.numpy(), np.zeros(len(curvature), dtype=bool)
    fitted[problem.fitted.numpy()] = True
    parameters = evaluation.data_rows - level.freedom
    for _, _, rows in problem.groups:
        own = rows[(robust & fitted)[rows]]
        if len(own):
            mean = float(curvature[own].mean())
            share = parameters / evaluation.data_rows  # parameters spent on each row
            # Huber's correction for what the fit takes out of few residuals (1981, eq. 7.6.7)
            correction = (1 + share * (1 - mean) / mean) ** 2 / max(1 - share, 1e-3)
            spread[own] = correction * float(np.mean(score[own] ** 2)) / mean
            curvature[own] = mean
    return curvature[fitted], spread[fitted]
