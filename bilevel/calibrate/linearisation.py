"""The linear model of the residuals about a point, r + J s: what it explains, what it cannot see, where it leads.

One reading of a Jacobian for the outer loop and for the statistics. Singular values are those of J with columns of unit
length, so that units of parameters and weights do not matter; what lies below the precision of the Jacobian is nothing:
a column of round-off is a zero column, and along null directions no step is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.parameters import ParameterSet

SMALLEST_NOISE = 1e-6
"""Noise that is estimated beside priors is taken for at least this fraction of the predictions: exact data leave none."""


class Linearisation:
    """r (m,) and J (m, p) at an evaluated point, observations divided by `noise`, priors as they are.

    held (p,): at a limit that phi pushes against. unseen (p,): columns that are zero to round-off. free: neither of them,
    nor `frozen`.
    """

    def __init__(
        self, evaluation: Evaluation, parameters: ParameterSet, noise: float = 1.0, frozen: np.ndarray | None = None
    ) -> None:
        assert evaluation.jacobian is not None
        self.evaluation = evaluation
        self.t, self.precision, self.noise = evaluation.t, evaluation.precision, noise
        self.low, self.high = parameters.limits()
        rows = evaluation.data_rows
        self._scale = np.where(np.arange(len(evaluation.residual)) < rows, 1 / noise, 1.0)
        self.residual = self.scaled(evaluation.residual)
        self.jacobian = self._scale[:, None] * evaluation.jacobian
        self.size = evaluation.size / noise
        effect = np.linalg.norm(self.jacobian[:rows], axis=0)
        effect = np.multiply(effect, parameters.reach(self.t), out=np.zeros_like(effect), where=effect > 0)
        self.jacobian[:rows, effect <= 0.1 * self.precision * self.size] = 0.0
        self.norms = np.linalg.norm(self.jacobian, axis=0)
        self.unseen = self.norms == 0
        downhill = -(self.jacobian.T @ self.residual)
        self.held = ((self.t <= self.low) & (downhill <= 0)) | ((self.t >= self.high) & (downhill >= 0))
        self.free = ~(self.held | self.unseen) if frozen is None else ~(self.held | self.unseen | frozen)

    @property
    def phi(self) -> float:
        return float(self.residual @ self.residual)

    @property
    def inside(self) -> float:
        """Norm of the part of the residual that the free parameters can still explain."""
        return float(np.linalg.norm(self._basis.T @ self.residual))

    @property
    def offset(self) -> float:
        """Root-mean-square of the residual's part in the tangent plane over that of the rest (0 = stationary).

        Bates & Watts (1981, Technometrics 23:179).
        """
        m, p = len(self.residual), int(self.free.sum())
        if p == 0 or self.phi == 0:
            return 0.0
        outside = float(np.linalg.norm(self.residual - self._basis @ (self._basis.T @ self.residual)))
        if outside == 0:
            return math.inf
        return (self.inside / math.sqrt(p)) / (outside / math.sqrt(max(m - p, 1)))

    @property
    def at_round_off(self) -> bool:
        """Whether what is left to explain lies below the digits of the predictions."""
        return self.inside <= 1e-2 * self.precision * self.size

    @property
    def rank(self) -> int:
        """Directions that the free parameters span."""
        return self._basis.shape[1]

    def target(self, radius: float, metric: np.ndarray) -> np.ndarray:
        """The t + s (p,) that minimises |r + J s| subject to |metric s| <= radius and the limits.

        Entries that would leave their limits are put there, and the rest is solved again.
        """
        target, movable = self.t.copy(), self.free.copy()
        while movable.any():
            target[movable] = self.t[movable]
            fixed = target - self.t
            left = math.sqrt(max(radius**2 - float(np.sum((metric * fixed) ** 2)), 0.0))
            columns = self.jacobian[:, movable] / metric[movable]
            step = _within(columns, self.residual + self.jacobian @ fixed, left, self.precision)
            target[movable] += step / metric[movable]
            beyond = movable & ((target < self.low) | (target > self.high))
            if not beyond.any():
                break
            target = np.clip(target, self.low, self.high)
            movable &= ~beyond
        return target

    def scaled(self, residual: np.ndarray) -> np.ndarray:
        """An evaluation's residual (m,) as it is here."""
        return self._scale * residual

    def accelerated(self, target: np.ndarray, bend: np.ndarray, longest: float, metric: np.ndarray) -> np.ndarray:
        """The target and half the a that minimises |bend + J a| for |metric a| <= longest; the target itself at limits."""
        movable = self.free & (target > self.low) & (target < self.high)
        columns = self.jacobian[:, movable] / metric[movable]
        a = _within(columns, bend, longest, self.precision)
        moved = target.copy()
        moved[movable] += 0.5 * a / metric[movable]
        inside = bool(((moved >= self.low) & (moved <= self.high)).all())
        return moved if inside else target

    def predicted(self, t: np.ndarray) -> np.ndarray:
        """The residual (m,) of the linear model at another point."""
        return self.residual + self.jacobian @ (t - self.t)

    def spectrum(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Singular values (k,) and right singular vectors (k, p) of the unit columns of some entries (mask)."""
        columns = self.jacobian[:, entries] / np.where(self.unseen, 1.0, self.norms)[entries]
        _, singular, v = np.linalg.svd(columns, full_matrices=len(columns) < columns.shape[1])
        directions = np.zeros((len(v), len(entries)))
        directions[:, entries] = v
        return np.concatenate([singular, np.zeros(len(v) - len(singular))]), directions

    def covariance(self, entries: np.ndarray, spread: float | np.ndarray) -> np.ndarray:
        """(J^T J)^-1 J^T C J (J^T J)^-1 of some entries (mask); infinite along null directions and for unseen entries.

        spread: C, one number or the diagonal (m,).
        """
        if isinstance(spread, np.ndarray):
            return self.sandwich(entries, lambda influence: (influence * spread) @ influence.T)
        norms, kept, unknown = self._inverse_root(entries)
        return _marked(spread * (kept.T @ kept), norms, unknown)

    def sandwich(self, entries: np.ndarray, between: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """L C L^T of some entries (mask), with L = (J^T J)^-1 J^T how each row moves them, and L C L^T = between(L)."""
        norms, kept, unknown = self._inverse_root(entries)
        influence = kept.T @ (kept @ (self.jacobian[:, entries] / norms).T)
        return _marked(between(influence), norms, unknown)

    def _inverse_root(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Norms of the columns of some entries, K with K^T K the inverse of their scaled Gram matrix, what that leaves open."""
        norms = np.where(self.unseen, 1.0, self.norms)[entries]
        singular, v = self.spectrum(entries)
        v = v[:, entries]
        null = singular <= self.precision * max(singular.max(initial=0.0), 1e-300)
        return norms, v[~null] / singular[~null, None], np.any(np.abs(v[null]) > 1e-6, axis=0)

    def variances(self, slopes: np.ndarray, spread: float | np.ndarray) -> np.ndarray:
        """g covariance g^T (k,) of each row g of `slopes` (k, p), entries at a limit held; infinite along null directions."""
        movable = ~self.held
        singular, v = self.spectrum(movable)
        along = (slopes / np.where(self.unseen, 1.0, self.norms)) @ v.T
        null = singular <= self.precision * max(singular.max(initial=0.0), 1e-300)
        unknown = np.abs(along[:, null]).max(axis=1, initial=0.0) > 1e-6 * np.linalg.norm(along, axis=1)
        along = along[:, ~null] / singular[~null]
        if isinstance(spread, np.ndarray):
            basis = (self.jacobian / np.where(self.unseen, 1.0, self.norms)) @ v[~null].T / singular[~null]
            return np.where(unknown, np.inf, np.sum((along @ ((basis.T * spread) @ basis)) * along, axis=1))
        return np.where(unknown, np.inf, spread * np.sum(along**2, axis=1))

    @cached_property
    def _basis(self) -> np.ndarray:
        u, singular, _ = np.linalg.svd(self.jacobian[:, self.free] / self.norms[self.free], full_matrices=False)
        return u[:, singular > self.precision * singular.max(initial=0.0)]


def _marked(inverse: np.ndarray, norms: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """A covariance of scaled entries in their own scale, with no end where nothing is known."""
    inverse[unknown, :] = inverse[:, unknown] = np.nan
    inverse[unknown, unknown] = np.inf
    return inverse / np.outer(norms, norms)


def estimated_noise(evaluation: Evaluation, parameters: ParameterSet) -> tuple[float, int]:
    """Standard deviation of the weighted residuals that observations leave, and their degrees of freedom.

    Taken from what no parameter can explain, with or without priors, so that it holds away from the minimum as well.
    1 where there are no more observations than they determine parameters.
    """
    rows = evaluation.data_rows
    assert evaluation.jacobian is not None
    data = Evaluation(
        t=evaluation.t,
        residual=evaluation.residual[:rows],
        gradient=evaluation.gradient,
        jacobian=evaluation.jacobian[:rows],
        prediction=evaluation.prediction,
        size=evaluation.size,
        inner_solves=evaluation.inner_solves,
        approximate=evaluation.approximate,
    )
    linear = Linearisation(data, parameters)
    freedom = rows - linear.rank
    if freedom <= 0:
        return 1.0, freedom
    noise = math.sqrt(max(linear.phi - linear.inside**2, 0.0) / freedom)
    return max(noise, SMALLEST_NOISE * evaluation.size / math.sqrt(rows), 1e-300), freedom


def _within(columns: np.ndarray, residual: np.ndarray, radius: float, precision: float) -> np.ndarray:
    """The z that minimises |r + A z| with |z| <= radius, nothing along singular vectors below the precision."""
    u, singular, v = np.linalg.svd(columns, full_matrices=False)
    seen = singular > precision * singular.max(initial=0.0)
    singular, v = singular[seen], v[seen]
    slope = singular * (u[:, seen].T @ residual)
    full = slope / singular**2
    if np.linalg.norm(full) <= radius:
        return -v.T @ full
    if radius == 0:
        return np.zeros(columns.shape[1])
    # |z(damping)| falls monotonically from above the radius at 0 to below it at |slope| / radius: bisect in the logarithm.
    low, high = 0.0, float(np.linalg.norm(slope)) / radius
    damping = high
    for _ in range(60):
        damping = math.sqrt(low * high) if low > 0 else 1e-3 * high
        length = np.linalg.norm(slope / (singular**2 + damping))
        if length > radius:
            low = damping
        elif length < 0.9 * radius:
            high = damping
        else:
            break
    return -v.T @ (slope / (singular**2 + damping))
