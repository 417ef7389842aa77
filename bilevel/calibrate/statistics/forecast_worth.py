"""How well predictions elsewhere are known before and after the calibration, and which readings that is owed to.

Linear and Gaussian (FOSM; Moore & Doherty 2005, Water Resour. Res. 41:W05020). Before: the priors of the parameters, and
where there is none but two bounds, these as two standard deviations either way. After: the same with the fitted readings,
(J^T J / s^2 + P)^-1. What a reading is worth is by how much the variance of a prediction rises without it; what a possible
new one is worth, by how much it would fall: closed forms of the Jacobian, no simulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.information import information

_NULL = 1e-10
"""Directions whose singular value is below this share of the largest are not known at all."""
BOUNDS = 4.0
"""A range between two bounds is so many standard deviations."""
NAMED = 5


@dataclass(frozen=True)
class Worth:
    """A reading, or a group of them, and the share by which the variance of a prediction rises without it or falls with it."""

    label: str
    share: float


@dataclass(frozen=True)
class Forecast:
    """A prediction in the user's units: before and after the calibration, and what carries it.

    prior_std: infinite where no prior or bounds limit it. groups, readings: those whose loss would hurt most, first.
    candidates: possible new readings, the one that helps most first; plan: the same one after the other, each beside those
    before it, with the share of today's variance that is then gone.
    """

    label: str
    units: str
    value: float
    prior_std: float
    std: float
    lower95: float
    upper95: float
    groups: list[Worth]
    readings: list[Worth]
    candidates: list[Worth]
    plan: list[Worth]

    @property
    def sentence(self) -> str:
        """What a reader wants to know."""
        before = f"{self.prior_std:.3g}" if math.isfinite(self.prior_std) else "without limit"
        after = f"+- {self.std:.3g}" if math.isfinite(self.std) else "but not determined"
        said = f"{self.label} is {self.value:.5g} {after} {self.units}".rstrip()
        said += f" (before the calibration: {before})"
        if self.groups and (worth := self.groups[0]).share > 0.01:
            said += (
                f"; it rests most on {worth.label}, without which its variance is {1 + worth.share:.3g} times as large"
            )
        if self.candidates and (worth := self.candidates[0]).share > 0.01:
            said += f"; of the possible readings {worth.label} would help most, and take {100 * worth.share:.2g} % of its variance"
        return said


def forecasts_of(
    problem: CalibrationProblem,
    evaluation: Evaluation,
    noise: Noise,
    scenarios: Sequence[Experiment],
    candidates: Sequence[Experiment] = (),
) -> list[Forecast]:
    """Every row of the scenarios at a fitted point that has a Jacobian; candidates: rows with a weight, not yet read."""
    whole = with_scenarios(problem, [*scenarios, *candidates])
    first = len(problem.value)
    wanted = np.arange(len(whole.value)) >= first
    predicted, slopes = whole.predictions_at(evaluation.t, wanted)
    count = sum(len(e.observations) for e in scenarios)
    possible = whole.weight.numpy()[first + count :, None] * slopes[count:]
    informed = information(problem, evaluation, noise)
    spread = np.nan_to_num(np.asarray(informed.spread, dtype=float), nan=1.0)
    spread = np.broadcast_to(spread, len(evaluation.residual))[: evaluation.data_rows]
    data = informed.linear.jacobian[: evaluation.data_rows] / np.sqrt(np.maximum(spread, 1e-300))[:, None]
    priors = prior_rows(problem, evaluation)
    lost = problem.misfit.losses(problem.fitted, torch.as_tensor(data)).numpy()
    labels = row_labels(whole)
    quantile = informed.level.quantile if math.isfinite(informed.level.quantile) else 1.96
    found = []
    for k, slope in enumerate(slopes[:count]):
        experiment, group = _owner(whole, first + k)
        units = experiment.observations.units_of(group)
        knowledge = _Knowledge(data, priors, slope)
        std = math.sqrt(knowledge.variance) / units.conversion.scale
        value = float(units.conversion.inverse(predicted[k]))
        found.append(
            Forecast(
                label=labels[first + k],
                units=units.name,
                value=value,
                prior_std=math.sqrt(_variance(priors, slope)) / units.conversion.scale,
                std=std,
                lower95=value - quantile * std,
                upper95=value + quantile * std,
                groups=knowledge.without_groups(problem),
                readings=knowledge.without_rows([labels[i] for i in problem.fitted.tolist()], lost),
                candidates=knowledge.with_rows(possible, labels[first + count :]),
                plan=knowledge.plan(possible, labels[first + count :]),
            )
        )
    return found


def prior_rows(problem: CalibrationProblem, evaluation: Evaluation) -> np.ndarray:
    """What is known before the calibration, as rows (k, p) of unit variance: priors, and bounds where there is none."""
    assert evaluation.jacobian is not None
    priors = evaluation.jacobian[evaluation.data_rows :]
    return np.concatenate([priors, _bounds_as_priors(problem.parameters, priors)])


def with_scenarios(problem: CalibrationProblem, scenarios: Sequence[Experiment]) -> CalibrationProblem:
    """The problem that predicts their rows after its own."""
    return problem.changed(experiments=[*problem.experiments, *scenarios])


def row_labels(problem: CalibrationProblem) -> list[str]:
    """Of every row: its group, and its number in it, from 1, where the group has several."""
    labels = [""] * len(problem.value)
    for experiment, group, rows in problem.groups:
        name = problem.group_label(experiment, group)
        for k, row in enumerate(rows, 1):
            labels[row] = f"{name}[{k}]" if len(rows) > 1 else name
    return labels


class _Knowledge:
    """What readings (m, p) and priors (k, p), as rows of unit variance, know of a prediction with a slope (p,)."""

    def __init__(self, data: np.ndarray, priors: np.ndarray, slope: np.ndarray) -> None:
        self.data, self.priors, self.slope = data, priors, slope
        self.variance = _variance(np.concatenate([data, priors]), slope)

    def without_groups(self, problem: CalibrationProblem) -> list[Worth]:
        place = np.full(len(problem.value), -1)
        place[problem.fitted.numpy()] = np.arange(len(problem.fitted))
        found = []
        for experiment, group, rows in problem.groups:
            own = place[rows][place[rows] >= 0]
            if len(own):
                left = np.concatenate([np.delete(self.data, own, axis=0), self.priors])
                found.append(Worth(problem.group_label(experiment, group), self._rise(_variance(left, self.slope))))
        return sorted(found, key=lambda worth: -worth.share)[:NAMED]

    def without_rows(self, labels: Sequence[str], lost: np.ndarray) -> list[Worth]:
        """A reading with which h (row of `lost`) is lost takes (h C g)^2 / (1 - h C h) from the variance of g.

        Sherman & Morrison (1950).
        """
        if not math.isfinite(self.variance) or self.variance == 0:
            return []
        along, own = self._seen(lost)
        with np.errstate(divide="ignore"):
            rise = np.where(own < 1 - _NULL, along**2 / np.maximum(1 - own, _NULL), np.where(along == 0, 0.0, np.inf))
        best = np.argsort(-rise, kind="stable")[:NAMED]
        return [Worth(labels[i], float(rise[i] / self.variance)) for i in best if rise[i] > 0]

    def with_rows(self, possible: np.ndarray, labels: Sequence[str]) -> list[Worth]:
        """A new reading h takes (h C g)^2 / (1 + h C h) away."""
        if not len(possible) or self.variance == 0:
            return []
        if math.isfinite(self.variance):
            along, own = self._seen(possible)
            shares = along**2 / (1 + own) / self.variance
        else:  # it may be what determines the prediction at all
            shares = np.array([float(math.isfinite(self._joined(row[None]).variance)) for row in possible])
        best = np.argsort(-shares, kind="stable")
        return [Worth(labels[i], float(shares[i])) for i in best[:NAMED] if shares[i] > 0]

    def plan(self, possible: np.ndarray, labels: Sequence[str]) -> list[Worth]:
        """One new reading after the other, each the best beside those before it."""
        now, left, found = self, list(range(len(possible))), []
        for _ in range(min(NAMED, len(left))):
            best = now.with_rows(possible[left], [str(i) for i in left])
            if not best:
                break
            chosen = int(best[0].label)
            left.remove(chosen)
            now = now._joined(possible[[chosen]])
            share = 1 - now.variance / self.variance if math.isfinite(self.variance) else 1.0
            found.append(Worth(labels[chosen], share))
        return found

    def _joined(self, rows: np.ndarray) -> _Knowledge:
        return _Knowledge(np.concatenate([self.data, rows]), self.priors, self.slope)

    def _seen(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """h C g and h C h of each row h; infinite directions, of which g knows nothing, are left out."""
        root = _inverse_root(np.concatenate([self.data, self.priors]))[0]
        along = rows @ root.T
        return along @ (root @ self.slope), np.sum(along**2, axis=1)

    def _rise(self, variance: float) -> float:
        if not math.isfinite(self.variance) or self.variance == 0:
            return 0.0
        return variance / self.variance - 1


def _variance(rows: np.ndarray, slope: np.ndarray) -> float:
    """g (R^T R)^-1 g; infinite where g has a part of which no row knows."""
    if not slope.any():
        return 0.0
    root, null, norms = _inverse_root(rows)
    unknown = np.abs(null @ (slope / norms)).max(initial=0.0) > 1e-6 * np.linalg.norm(slope / norms)
    return math.inf if unknown else float(np.sum((root @ slope) ** 2))


def _inverse_root(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W (k, p) with W^T W = (R^T R)^-1 on what the rows know, the directions of unit columns of which they do not, and norms."""
    norms = np.linalg.norm(rows, axis=0)
    norms = np.where(norms == 0, 1.0, norms)
    _, singular, v = np.linalg.svd(rows / norms, full_matrices=len(rows) < rows.shape[1])
    singular = np.concatenate([singular, np.zeros(len(v) - len(singular))])
    seen = singular > _NULL * singular.max(initial=0.0)
    return v[seen] / singular[seen, None] / norms, v[~seen], norms


def _bounds_as_priors(parameters: ParameterSet, priors: np.ndarray) -> np.ndarray:
    """Rows (k, p) for the entries that no prior touches and that have two bounds."""
    low, high = parameters.bounds()
    bare = np.isfinite(high - low) & ~(priors != 0).any(axis=0)
    return np.diag(BOUNDS / np.where(bare, high - low, 1.0))[bare]


def _owner(problem: CalibrationProblem, row: int) -> tuple[Experiment, str]:
    return next((experiment, group) for experiment, group, rows in problem.groups if row in rows)
