"""Two checks of the final Jacobian: against finite differences, and by the certificate of the implicit layers."""

from __future__ import annotations

import numpy as np
import torch

from bilevel.calibrate.problem import CalibrationProblem, Evaluation
from bilevel.calibrate.settings import Transform
from bilevel.implicit.outer_gradient import gradient
from bilevel.report import GradientReport

_STEP = 1e-2


def jacobian_error(problem: CalibrationProblem, evaluation: Evaluation) -> float:
    """Relative difference of J v and (4 D(h/2) - D(h)) / 3; costs four simulations. NaN without sensitivity.

    v moves every parameter so that its own part of the prediction changes alike, by about one percent.
    """
    jacobian = evaluation.jacobian
    assert jacobian is not None
    v = _direction(problem, evaluation)
    exact = jacobian[: len(problem.fitted)] @ v
    if not np.any(exact):
        return float("nan")
    weight = problem.weight[problem.fitted].numpy()

    def difference(h: float) -> np.ndarray:
        ahead, behind = (_predict(problem, evaluation.t + sign * h * v) for sign in (1.0, -1.0))
        return weight * (ahead - behind) / (2 * h)

    extrapolated = (4 * difference(_STEP / 2) - difference(_STEP)) / 3
    return float(np.linalg.norm(extrapolated - exact) / np.linalg.norm(exact))


def certificate(problem: CalibrationProblem, t: np.ndarray) -> GradientReport:
    """The certificate of the gradient of a sum of weighted predictions with signs in turn.

    Not of phi's own gradient, which is zero at the optimum, so that its relative error would say nothing.
    """
    signs = 1.0 - 2.0 * (torch.arange(len(problem.weight)) % 2)
    return gradient(lambda t: (signs * problem.weight * problem.predict(t)).sum(), torch.as_tensor(t)).report


def _direction(problem: CalibrationProblem, evaluation: Evaluation) -> np.ndarray:
    assert evaluation.jacobian is not None
    norms = np.linalg.norm(evaluation.jacobian, axis=0)
    size = float(np.linalg.norm(problem.weight.numpy() * evaluation.prediction))
    effect = np.divide(size, norms, out=np.zeros_like(norms), where=norms > 0)
    signs = np.where(np.arange(len(norms)) % 2 == 0, 1.0, -1.0)
    return signs * np.minimum(effect, _reach(problem, evaluation.t)) / np.sqrt(max(len(norms), 1))


def _reach(problem: CalibrationProblem, t: np.ndarray) -> np.ndarray:
    """How far t may go: by one where it is a logarithm, else by its own size (anywhere from 0)."""
    own = np.where(t == 0, np.inf, np.abs(t))
    for parameter in problem.parameters.free:
        if parameter.transform is not Transform.NONE:
            own[problem.parameters.slices[parameter.label]] = 1.0
    return own


def _predict(problem: CalibrationProblem, t: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return problem.predict(torch.as_tensor(t))[problem.fitted].numpy()
