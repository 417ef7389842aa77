"""L-BFGS-B with exact gradients (SciPy): for many parameters, where a Jacobian a step would cost too many sweeps.

It goes as far as gradients lead; least squares then goes on to the last digit, usually in no step or a few, and says
what converged means: the relative offset, as for every method.
"""

from __future__ import annotations

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.ending import Ending
from bilevel.calibrate.fit.evaluator import Evaluator, IterationLimit
from bilevel.calibrate.fit.least_squares import LeastSquaresLoop
from bilevel.calibrate.settings import Settings

_ENOUGH = 0.9
"""A round that leaves more than this share of phi is the last."""


def minimise_lbfgsb(evaluator: Evaluator, settings: Settings) -> Ending:
    """Rounds of L-BFGS-B, each in units of the phi at its start, then least squares from the best point."""
    start = evaluator.problem.parameters.start()
    try:
        current = evaluator(start, settings.verify)
        evaluator.accept(current)
        while current.phi > 0:
            following = _round(evaluator, current, settings.tolerance)
            enough = following.phi > _ENOUGH * current.phi
            current = following
            if enough:
                break
    except IterationLimit:
        pass
    return LeastSquaresLoop(evaluator, settings).minimise(evaluator.best)


def _round(evaluator: Evaluator, first: Evaluation, tolerance: float) -> Evaluation:
    """Entries are scaled by their own size where this is not 0, so that untransformed ones of any size move."""
    from scipy.optimize import minimize  # half a second, for this method alone

    scale = np.where(first.t == 0, 1.0, np.abs(first.t))
    low, high = evaluator.problem.parameters.limits()
    objective = _Objective(evaluator, first, scale)
    end = minimize(
        objective,
        first.t / scale,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low / scale, high / scale)),
        callback=lambda z: evaluator.accept(evaluator(objective.point(z), False)),
        options={
            "maxiter": 10 * (evaluator.noptmax + 1),
            "maxfun": 20 * (evaluator.noptmax + 1),
            "ftol": 1e-15,
            "gtol": tolerance,
        },
    )
    last = evaluator(objective.point(end.x), False)
    evaluator.accept(last)
    return last


class _Objective:
    """phi / phi(first) and its gradient in scaled coordinates; a failed point is a bowl around the best so far."""

    def __init__(self, evaluator: Evaluator, first: Evaluation, scale: np.ndarray) -> None:
        self.evaluator, self.scale, self.unit = evaluator, scale, first.phi

    def point(self, z: np.ndarray) -> np.ndarray:
        low, high = self.evaluator.problem.parameters.limits()
        return np.clip(z * self.scale, low, high)

    def __call__(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        evaluation = self.evaluator(self.point(z), False)
        if not evaluation.sentence:
            return evaluation.phi / self.unit, evaluation.gradient * self.scale / self.unit
        away = z - self.evaluator.best / self.scale
        return 10.0 + float(away @ away), 2 * away
