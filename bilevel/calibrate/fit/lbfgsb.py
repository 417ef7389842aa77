"""L-BFGS-B with exact gradients (SciPy): for many parameters, where a Jacobian would cost too many sweeps."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from bilevel.calibrate.fit.evaluator import Evaluator, IterationLimit
from bilevel.calibrate.problem import Evaluation


def minimise_lbfgsb(evaluator: Evaluator, tolerance: float) -> str:
    """Run until the scaled gradient of phi/phi(start) is below `tolerance`; returns what stopped it, "" if converged.

    Entries are scaled by their start values where these are not 0, so that untransformed parameters of any size move.
    """
    parameters = evaluator.problem.parameters
    start = parameters.start()
    scale = np.where(start == 0, 1.0, np.abs(start))
    low, high = parameters.bounds()
    try:
        first = evaluator.accept(start)
        if first.phi == 0:
            return ""
        objective = _Objective(evaluator, first, scale)
        end = minimize(
            objective,
            start / scale,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low / scale, high / scale)),
            callback=lambda z: evaluator.accept(objective.point(z)) and None,
            options={
                "maxiter": 10 * (evaluator.noptmax + 1),
                "maxfun": 20 * (evaluator.noptmax + 1),
                "ftol": 1e-15,
                "gtol": tolerance,
            },
        )
        evaluator.accept(objective.point(end.x))
    except IterationLimit:
        return f"the limit of {evaluator.noptmax} iterations; raise noptmax or use method: least_squares"
    return "" if end.success else f"L-BFGS-B says: {end.message.strip().lower()}"


class _Objective:
    """phi / phi(start) and its gradient in scaled coordinates; a failed point is a bowl around the best so far."""

    def __init__(self, evaluator: Evaluator, first: Evaluation, scale: np.ndarray) -> None:
        self.evaluator, self.scale, self.unit = evaluator, scale, first.phi

    def point(self, z: np.ndarray) -> np.ndarray:
        low, high = self.evaluator.problem.parameters.bounds()
        return np.clip(z * self.scale, low, high)

    def __call__(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        evaluation = self.evaluator(self.point(z))
        if not evaluation.sentence:
            return evaluation.phi / self.unit, evaluation.gradient * self.scale / self.unit
        away = z - self.evaluator.best.t / self.scale
        return 10.0 + float(away @ away), 2 * away
