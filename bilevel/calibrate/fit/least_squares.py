"""Levenberg-Marquardt in a trust region with bounds (SciPy), then Gauss-Newton steps to the last digit.

Convergence is judged by the relative offset of Bates & Watts (1981, Technometrics 23:179): how large the part of the
residual that parameters can still explain is against the part that they cannot. It has no units and needs no scaling.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares, lsq_linear

from bilevel.calibrate.fit.evaluator import Evaluator, IterationLimit
from bilevel.calibrate.problem import Evaluation

_POLISH = 12
_TRIES = 5
_RANK = 1e-12


def minimise_least_squares(evaluator: Evaluator, tolerance: float) -> str:
    """Run to convergence; returns the reason for the end, "" if converged. The iterates are in the evaluator."""
    parameters = evaluator.problem.parameters
    bounds = parameters.bounds()
    try:
        end = least_squares(
            lambda t: evaluator(t).residual,
            parameters.start(),
            lambda t: evaluator.accept(t).jacobian,
            bounds=bounds,
            method="trf",
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-12,
            gtol=None,
            max_nfev=20 * (evaluator.noptmax + 1),
        )
        evaluator.accept(end.x)
        _polish(evaluator, bounds, tolerance)
    except IterationLimit:
        pass
    best = evaluator.best
    if is_stationary(best, bounds, tolerance):
        return ""
    offset = relative_offset(best, bounds)
    limit = (
        f"the limit of {evaluator.noptmax} iterations"
        if len(evaluator.iterations) > evaluator.noptmax
        else "no step reduced phi further"
    )
    return (
        f"{limit}, relative offset {offset:.2g} is above {tolerance:.2g}; "
        "raise noptmax, start closer, or tighten the inner solves"
    )


def relative_offset(evaluation: Evaluation, bounds: tuple[np.ndarray, np.ndarray]) -> float:
    """Root-mean-square of the residual's part in the tangent plane over that of the rest (0 = stationary)."""
    jacobian = _columns(evaluation, bounds)
    m, p = jacobian.shape
    if p == 0 or evaluation.phi == 0:
        return 0.0
    u, singular, _ = np.linalg.svd(_scaled(jacobian)[0], full_matrices=False)
    basis = u[:, singular > _RANK * singular.max(initial=0.0)]
    inside = float(np.sum((basis.T @ evaluation.residual) ** 2))
    outside = max(evaluation.phi - inside, 0.0)
    if outside == 0:
        return np.inf
    return float(np.sqrt(inside / p) / np.sqrt(outside / max(m - p, 1)))


def is_stationary(evaluation: Evaluation, bounds: tuple[np.ndarray, np.ndarray], tolerance: float) -> bool:
    """Relative offset below the tolerance; or, where data are met exactly, a Gauss-Newton step that moves nothing."""
    if relative_offset(evaluation, bounds) <= tolerance:
        return True
    step = _gauss_newton(evaluation, bounds) - evaluation.t
    return bool(
        np.all(np.abs(step) <= 1e-9 * np.maximum(np.abs(evaluation.t), 1e-3 * np.abs(evaluation.t).max(initial=0.0)))
    )


def active(evaluation: Evaluation, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Entries at a bound that phi pushes against it."""
    low, high = bounds
    t, downhill = evaluation.t, -evaluation.gradient
    return ((t <= low) & (downhill <= 0)) | ((t >= high) & (downhill >= 0))


def _polish(evaluator: Evaluator, bounds: tuple[np.ndarray, np.ndarray], tolerance: float) -> None:
    current = evaluator.best
    for _ in range(_POLISH):
        if relative_offset(current, bounds) <= 1e-3 * tolerance:
            return
        converged = relative_offset(current, bounds) <= tolerance  # then one try for more digits, no search
        following = _better(evaluator, current, bounds, 1 if converged else _TRIES)
        if following is None:
            return
        current = evaluator.accept(following.t)


def _better(
    evaluator: Evaluator, current: Evaluation, bounds: tuple[np.ndarray, np.ndarray], tries: int
) -> Evaluation | None:
    target = _gauss_newton(current, bounds)
    offset = relative_offset(current, bounds)
    for halving in range(tries):
        t = target if halving == 0 else current.t + 0.5**halving * (target - current.t)
        if np.array_equal(t, current.t):
            return None
        trial = evaluator(t)
        # At the last digits phi is flat to round-off; there the offset decides.
        flat = trial.phi <= current.phi * (1 + 1e-10) and relative_offset(trial, bounds) < 0.5 * offset
        if trial.phi < current.phi * (1 - 1e-12) or flat:
            return trial
    return None


def _gauss_newton(evaluation: Evaluation, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The point that minimises the linearised phi within the bounds."""
    free = ~active(evaluation, bounds)
    target = evaluation.t.copy()
    if free.any():
        scaled, scale = _scaled(_columns(evaluation, bounds))
        target[free] += np.linalg.lstsq(scaled, -evaluation.residual, rcond=_RANK)[0] / scale
    low, high = bounds
    if np.all((target >= low) & (target <= high)):
        return target
    assert evaluation.jacobian is not None
    scaled, scale = _scaled(evaluation.jacobian)
    room = (scale * (low - evaluation.t), scale * (high - evaluation.t))
    best = lsq_linear(scaled, -evaluation.residual, room, method="bvls")
    target = np.clip(evaluation.t + best.x / scale, low, high)
    return np.where(best.active_mask < 0, low, np.where(best.active_mask > 0, high, target))


def _columns(evaluation: Evaluation, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    assert evaluation.jacobian is not None
    return evaluation.jacobian[:, ~active(evaluation, bounds)]


def _scaled(jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.linalg.norm(jacobian, axis=0)
    scale[scale == 0] = 1.0
    return jacobian / scale, scale
