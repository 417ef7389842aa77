"""Standard deviations under errors that resemble their neighbours', beside those of independent ones.

Errors of a group have the correlation exp(-distance / length) along the rows or a column. The estimates stay those of
least squares; their covariance is L C L^T, with L how each reading moves them and C the errors' covariance. C is not
known but inferred from residuals, from the likelihood of what the parameters cannot explain (REML; Patterson & Thompson
1971, Biometrika 58:545), averaged over all lengths: the likeliest length alone is too short where few lengths fit
into the data, and intervals from it would cover 86 % in place of 95 (100 readings of three parameters, rho = 0.9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.information import Information, information
from bilevel.calibrate.statistics.randomness import FEWEST, randomness

_NEIGHBOURS = np.tanh(np.linspace(0.02, 4.5, 40))
"""Correlations of neighbours that are tried."""


@dataclass(frozen=True)
class CorrelatedGroup:
    """A group's errors: correlation of neighbours, and how many independent readings the group is worth."""

    label: str
    neighbours: float
    rows: int
    effective: float


@dataclass(frozen=True)
class _Errors:
    """Errors of some fitted rows in order: each candidate's probability (k,), variance (k,) and step correlations (k, n - 1)."""

    rows: np.ndarray
    probability: np.ndarray
    variance: np.ndarray
    steps: np.ndarray

    def between(self, influence: np.ndarray) -> np.ndarray:
        """L C L^T (p, p) of an influence (p, n), averaged over the candidates."""
        weight = self.probability * self.variance
        before = np.zeros((len(weight), len(influence)))  # sum over earlier rows, each weakened on its way here
        total = weight.sum() * (influence @ influence.T)
        for i in range(1, influence.shape[1]):
            before = self.steps[:, i - 1, None] * (before + influence[:, i - 1])
            cross = np.outer(influence[:, i], weight @ before)
            total += cross + cross.T
        return total

    def group(self, label: str) -> CorrelatedGroup:
        n = len(self.rows)
        mean = self.between(np.full((1, n), 1 / n))[0, 0] / float(self.probability @ self.variance)
        return CorrelatedGroup(label, float(self.probability @ np.median(self.steps, axis=1)), n, 1 / mean)


def correlated_covariance(
    problem: CalibrationProblem, evaluation: Evaluation, noise: Noise
) -> tuple[np.ndarray, list[CorrelatedGroup]] | None:
    """Covariance of the entries of t that are not held, and the groups; None where errors look independent.

    Groups are those that ask for it, and those of normal noise whose residuals are not random.
    """
    informed = information(problem, evaluation, noise)
    found = {label: _errors(informed, rows, places) for label, rows, places in _groups(problem, evaluation)}
    if not found:
        return None

    def between(influence: np.ndarray) -> np.ndarray:
        spread = np.broadcast_to(np.asarray(informed.spread, dtype=float), influence.shape[1:]).copy()
        total = np.zeros((len(influence), len(influence)))
        for errors in found.values():
            spread[errors.rows] = 0.0
            total += errors.between(influence[:, errors.rows])
        return total + (influence * spread) @ influence.T

    covariance = informed.linear.sandwich(~informed.linear.held, between)
    return covariance, [errors.group(label) for label, errors in found.items()]


def _groups(problem: CalibrationProblem, evaluation: Evaluation) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """Label, fitted rows (among all fitted ones) in order, and their places or None for their order."""
    suspects = {g.label for g in randomness(problem, evaluation) if not g.random}
    fitted, normal = problem.fitted.numpy(), problem.misfit.normal.numpy()
    position = np.full(len(problem.value), -1)
    position[fitted] = np.arange(len(fitted))
    found = []
    for experiment, group, rows in problem.groups:
        label, own = problem.group_label(experiment, group), experiment.observations.noise.get(group)
        column = None if own is None else own.correlated
        rows = rows[(position[rows] >= 0) & normal[rows]]
        if len(rows) < FEWEST or (column is None and label not in suspects):
            continue
        places = None
        if column:
            places = experiment.observations.columns[column].numpy()[rows - _first(problem, experiment.name)]
            order = np.argsort(places, kind="stable")
            rows, places = rows[order], places[order]
        found.append((label, position[rows], places))
    return found


def _first(problem: CalibrationProblem, experiment: str) -> int:
    """The first row of an experiment among all rows."""
    start = 0
    for e in problem.experiments:
        if e.name == experiment:
            break
        start += len(e.observations)
    return start


def _errors(informed: Information, rows: np.ndarray, places: np.ndarray | None) -> _Errors:
    """REML over the candidates, from the part of a group's residuals that no parameter can explain."""
    linear = informed.linear
    jacobian, residual = linear.jacobian[rows], linear.residual[rows]
    u, singular, _ = np.linalg.svd(jacobian / np.where(linear.norms == 0, 1.0, linear.norms), full_matrices=False)
    basis = u[:, singular > linear.precision * singular.max(initial=0.0)]
    free = max(len(rows) - basis.shape[1], 1)
    gaps = np.ones(len(rows) - 1) if places is None else np.diff(places) / np.median(np.diff(places))
    steps = np.clip(_NEIGHBOURS[:, None] ** gaps, 1e-12, 1 - 1e-12)
    variance, minus = np.empty(len(steps)), np.empty(len(steps))
    for k, step in enumerate(steps):
        q, upper = np.linalg.qr(_whitened(basis, step))
        white = _whitened(residual[:, None], step)[:, 0]
        variance[k] = np.sum((white - q @ (q.T @ white)) ** 2) / free
        determinant = np.sum(np.log1p(-(step**2))) + 2 * np.sum(np.log(np.abs(np.diag(upper))))
        minus[k] = free * np.log(max(variance[k], 1e-300)) + determinant
    # uniform in the neighbours' correlation, whose grid is denser towards 1
    probability = np.exp(-0.5 * (minus - minus.min())) * np.gradient(_NEIGHBOURS)
    return _Errors(rows, probability / probability.sum(), variance, steps)


def _whitened(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Rows (n, p) whose errors are independent and of unit variance: a Markov chain's differences."""
    white = rows.copy()
    white[1:] = (rows[1:] - steps[:, None] * rows[:-1]) / np.sqrt(1 - steps**2)[:, None]
    return white
