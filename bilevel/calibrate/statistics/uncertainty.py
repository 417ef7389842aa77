"""Standard deviations, intervals and correlations from the final Jacobian (linear theory).

Conventions: covariance of t = s^2 (J^T J)^-1 over the entries that are not held at a bound, with J the weighted
Jacobian and s^2 = phi / (m - rank J) when the noise is estimated, 1 when weights are known to be 1/sigma. Priors are
absolute: beside them, observations are divided by the s that they themselves leave, and the covariance is
(J^T J / s^2 + P)^-1 with P the priors' information.
Natural values by the delta method; 95 % intervals are Student-t intervals of t mapped to natural values, so those of
log-transformed parameters are not symmetric. A parameter held at its bound has no standard deviation (NaN).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.correlated import CorrelatedGroup, correlated_covariance
from bilevel.calibrate.statistics.information import information
from bilevel.torch_internals import forward_sweeps


@dataclass(frozen=True)
class Statistics:
    """Linear statistics at a point; arrays are over the entries of t (p,) or over all natural entries (q,).

    labels: the natural entries, free, derived and fixed. std, lower95, upper95: (q,) in the user's units.
    covariance: (q, q), natural. correlation: (p, p) of the free entries. std_t: (p,). held: (p,) at an active bound.
    variance: s^2. chi_square: reduced. Between many parameters there is neither covariance nor correlation (None).
    """

    labels: list[str]
    std: np.ndarray
    lower95: np.ndarray
    upper95: np.ndarray
    covariance: np.ndarray | None
    free_labels: list[str]
    correlation: np.ndarray | None
    covariance_t: np.ndarray | None
    std_t: np.ndarray
    held: np.ndarray
    variance: float
    degrees_of_freedom: int
    quantile: float
    chi_square: float
    correlated: CorrelatedStatistics | None = None

    @property
    def factors(self) -> dict[str, float]:
        """Label -> how many times its standard deviation is larger under correlated errors; {} where errors look independent."""
        if self.correlated is None:
            return {}
        pairs = zip(self.labels, self.correlated.std, self.std)
        return {label: float(wide / plain) for label, wide, plain in pairs if plain > 0 and np.isfinite(wide)}


@dataclass(frozen=True)
class CorrelatedStatistics:
    """The same under errors that resemble their neighbours': std, lower95, upper95 (q,), and the groups of such errors."""

    std: np.ndarray
    lower95: np.ndarray
    upper95: np.ndarray
    groups: list[CorrelatedGroup]


def linear_statistics(
    problem: CalibrationProblem, evaluation: Evaluation, noise: Noise = Noise.ESTIMATED
) -> Statistics:
    """The statistics at an evaluated point that has a Jacobian."""
    informed = information(problem, evaluation, noise)
    level, held = informed.level, informed.linear.held
    covariance_t = np.full((len(held), len(held)), np.nan)
    covariance_t[np.ix_(~held, ~held)] = informed.covariance(~held)
    std_t = np.sqrt(np.diag(covariance_t))
    t = torch.as_tensor(evaluation.t)
    slopes = (
        forward_sweeps(lambda: torch.func.jacfwd(lambda t: _stacked(problem, t))(t)).numpy()
        if len(held)
        else np.zeros((_size(problem), 0))
    )
    covariance = _propagated(slopes, covariance_t)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance_t / np.outer(std_t, std_t)
    lower95, upper95 = _interval(problem, evaluation.t, level.quantile * std_t)
    return Statistics(
        labels=[label for p in problem.parameters.parameters for label in p.entry_labels],
        std=np.sqrt(np.diag(covariance)),
        lower95=lower95,
        upper95=upper95,
        covariance=covariance,
        free_labels=problem.parameters.entry_labels,
        correlation=correlation,
        covariance_t=covariance_t,
        std_t=std_t,
        held=held,
        variance=level.variance,
        degrees_of_freedom=level.freedom,
        quantile=level.quantile,
        chi_square=level.chi_square,
        correlated=_correlated(problem, evaluation, noise, held, slopes, level.quantile),
    )


def _correlated(
    problem: CalibrationProblem,
    evaluation: Evaluation,
    noise: Noise,
    held: np.ndarray,
    slopes: np.ndarray,
    quantile: float,
) -> CorrelatedStatistics | None:
    if (found := correlated_covariance(problem, evaluation, noise)) is None:
        return None
    covariance = np.full((len(held), len(held)), np.nan)
    covariance[np.ix_(~held, ~held)] = found[0]
    ends = _interval(problem, evaluation.t, quantile * np.sqrt(np.diag(covariance)))
    return CorrelatedStatistics(np.sqrt(np.diag(_propagated(slopes, covariance))), *ends, found[1])


def _stacked(problem: CalibrationProblem, t: torch.Tensor) -> torch.Tensor:
    return torch.cat([value.reshape(-1) for value in problem.parameters.natural(t).values()])


def _size(problem: CalibrationProblem) -> int:
    return sum(p.size for p in problem.parameters.parameters)


def _propagated(slopes: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """S C S^T, where an unknown variance spreads only to what depends on it."""
    known = np.isfinite(np.diag(covariance))
    result = slopes[:, known] @ covariance[np.ix_(known, known)] @ slopes[:, known].T
    for i in np.nonzero(~known)[0]:
        touched = slopes[:, i] != 0
        result[touched, :] = result[:, touched] = np.nan
        result[touched, touched] = np.diag(covariance)[i]
    return result


def _interval(problem: CalibrationProblem, t: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = []
    for sign in (-1.0, 1.0):
        ends.append(_stacked(problem, torch.as_tensor(t + sign * half)).numpy())
    return np.fmin(*ends), np.fmax(*ends)
