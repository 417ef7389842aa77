"""phi of the readings and of the fields about a fit, for every strength of smoothing, and what the rules make of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Strength, StrengthRule
from bilevel.report import InputError

_GRID = np.exp(np.linspace(math.log(1e-8), math.log(1e8), 321))
"""lambda over the one at which data and fields have equal say in the mean."""
_GOLDEN = (math.sqrt(5) - 1) / 2


class StrengthLine(ABC):
    """rows: of readings. balance: the lambda at which readings and fields have equal say. rest: change of log lambda at rest."""

    rows: int
    balance: float
    rest: float

    @abstractmethod
    def at(self, strength: float) -> tuple[float, float, float]:
        """phi of the readings, phi of the fields, and the trace of the influence of the readings on themselves."""

    def choice(self, asked: Strength) -> float:
        """The lambda that a rule takes; InputError where there is none."""
        if asked.rule is StrengthRule.DISCREPANCY:
            return self._discrepancy(asked.target)
        if asked.rule is StrengthRule.GCV:
            return self._least(self._gcv, "generalised cross-validation has no minimum")
        return self._least(lambda strength: -self._curvature(strength), "the L-curve has no corner")

    def _discrepancy(self, target: float) -> float:
        """phi of the readings rises with lambda: bisect in its logarithm."""
        low, high = math.log(self.balance * _GRID[0]), math.log(self.balance * _GRID[-1])
        ends = [self.at(math.exp(end))[0] / self.rows for end in (low, high)]
        if not ends[0] <= target <= ends[1]:
            raise InputError(
                f"strength: no strength gives phi = {target:g} for each reading; it lies between {ends[0]:.3g} (no smoothing) and "
                f"{ends[1]:.3g} (all smooth), so question the std of the readings, or the model"
            )
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(math.exp(middle))[0] / self.rows < target else (low, middle)
        return math.exp((low + high) / 2)

    def _gcv(self, strength: float) -> float:
        phi, _, trace = self.at(strength)
        return math.log(max(phi, 1e-300)) - 2 * math.log(max(self.rows - trace, 1e-12))

    def _curvature(self, strength: float) -> float:
        """Of log phi of the fields against log phi of the readings (Hansen 1992), by differences in log lambda."""
        h = 0.05
        x, y = np.log(np.maximum([self.at(strength * math.exp(k * h))[:2] for k in (-1, 0, 1)], 1e-300)).T
        dx, dy, ddx, ddy = x[2] - x[0], y[2] - y[0], x[2] - 2 * x[1] + x[0], y[2] - 2 * y[1] + y[0]
        speed = dx**2 + dy**2
        return 0.0 if speed == 0 else float(4 * (dx * ddy - dy * ddx) / speed**1.5)

    def _least(self, score: Callable[[float], float], failure: str) -> float:
        """The least score on the grid, refined by golden sections."""
        scores = [score(self.balance * ratio) for ratio in _GRID]
        best = int(np.argmin(scores))
        if best in (0, len(_GRID) - 1):
            raise InputError(
                f"strength: {failure} between lambda {self.balance * _GRID[0]:.1g} and {self.balance * _GRID[-1]:.1g}"
            )
        low, high = (math.log(self.balance * _GRID[best + k]) for k in (-1, 1))
        for _ in range(40):
            one, two = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
            low, high = (low, two) if score(math.exp(one)) < score(math.exp(two)) else (one, high)
        return math.exp((low + high) / 2)


class DenseLine(StrengthLine):
    """In the eigenvectors of (J^T J + C, F^T F); C are the parameters' own priors, which lambda leaves as they are."""

    rest = 5e-3

    def __init__(self, evaluation: Evaluation, count: int, strength: float) -> None:
        """count: rows of the fields, which stand last."""
        assert evaluation.jacobian is not None
        scale = math.sqrt(strength)
        jacobian, residual = evaluation.jacobian, evaluation.residual
        self.rows = evaluation.data_rows
        self.kept, self.fields = jacobian[:-count], jacobian[-count:] / scale
        self.misfit, self.roughness = residual[:-count], residual[-count:] / scale
        self.balance = np.sum(self.kept**2) / max(np.sum(self.fields**2), 1e-300)
        # unit lambda in the mean, so that both matrices are of one size; rows are stacked, not squared
        stacked = np.concatenate([self.kept, math.sqrt(self.balance) * self.fields])
        q, r = np.linalg.qr(stacked)
        if np.linalg.cond(r) > 1e12:
            raise InputError(
                "strength: some parameters are seen neither by readings nor by priors; fix them or give them a prior"
            )
        _, c, v = np.linalg.svd(q[: len(self.kept)], full_matrices=True)
        self.seen = np.zeros(len(v))
        self.seen[: len(c)] = np.minimum(c, 1.0) ** 2
        self.step = np.linalg.solve(r, v.T)  # columns: directions in which both are diagonal, seen + unseen = 1
        self.pull = self.step.T @ (self.kept.T @ self.misfit), self.step.T @ (self.fields.T @ self.roughness)

    def at(self, strength: float) -> tuple[float, float, float]:
        """phi of the readings, phi of the fields, and the trace of the influence of the readings on themselves."""
        smooth = strength / self.balance * (1 - self.seen)
        s = -self.step @ ((self.pull[0] + strength * self.pull[1]) / (self.seen + smooth))
        left = self.misfit + self.kept @ s
        along = self.kept[: self.rows] @ self.step
        trace = float(np.sum(along**2 / (self.seen + smooth)))
        return float(np.sum(left[: self.rows] ** 2)), float(np.sum((self.roughness + self.fields @ s) ** 2)), trace


class LowRankLine(StrengthLine):
    """From the posterior of a fit at one lambda; single parameters' own priors count as if they were of the field."""

    rest = 2e-2

    def __init__(self, problem: CalibrationProblem, evaluation: Evaluation, posterior: LaplacePosterior) -> None:
        self.rows, self.strength = evaluation.data_rows, problem.strength
        self.mu = posterior.eigenvalues
        residual = evaluation.residual[: self.rows]
        along = posterior.left @ residual
        self.beyond = max(float(residual @ residual - along @ along), 0.0)
        # without smoothing the fit would leave nothing of what is seen: d = (1 + mu) r along each direction
        self.seen = ((1 + self.mu) * along) ** 2
        self.balance = self.strength * float(np.mean(self.mu))

    def at(self, strength: float) -> tuple[float, float, float]:
        ratio = strength / self.strength
        share = self.seen / (self.mu + ratio) ** 2
        phi = self.beyond + ratio**2 * float(share.sum())
        return phi, float(self.mu @ share) / self.strength, float(np.sum(self.mu / (self.mu + ratio)))
