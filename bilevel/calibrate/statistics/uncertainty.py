"""Standard deviations, intervals and correlations from the final Jacobian (linear theory).

Conventions: covariance of t = s^2 (J^T J)^-1 over the entries that are not held at a bound, with J the weighted
Jacobian (priors included as rows) and s^2 = phi / (m - rank J) when the noise is estimated, 1 when weights are known
to be 1/sigma.
Natural values by the delta method; 95 % intervals are Student-t intervals of t mapped to natural values, so those of
log-transformed parameters are not symmetric. A parameter held at its bound has no standard deviation (NaN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from bilevel.calibrate.fit.least_squares import active
from bilevel.calibrate.problem import CalibrationProblem, Evaluation
from bilevel.calibrate.settings import Noise

NULL = 1e-13
"""Singular values below this fraction of the largest are round-off."""


@dataclass(frozen=True)
class Statistics:
    """Linear statistics at a point; arrays are over the entries of t (p,) or over all natural entries (q,).

    labels: the natural entries, free, tied and fixed. std, lower95, upper95: (q,) in the user's units.
    covariance: (q, q), natural. correlation: (p, p) of the free entries. std_t: (p,). held: (p,) at an active bound.
    """

    labels: list[str]
    std: np.ndarray
    lower95: np.ndarray
    upper95: np.ndarray
    covariance: np.ndarray
    free_labels: list[str]
    correlation: np.ndarray
    covariance_t: np.ndarray
    std_t: np.ndarray
    held: np.ndarray
    variance: float
    degrees_of_freedom: int
    quantile: float


def linear_statistics(
    problem: CalibrationProblem, evaluation: Evaluation, noise: Noise = Noise.ESTIMATED
) -> Statistics:
    """The statistics at an evaluated point that has a Jacobian."""
    assert evaluation.jacobian is not None
    bounds = problem.parameters.bounds()
    held = active(evaluation, bounds)
    freedom = degrees_of_freedom(evaluation.jacobian[:, ~held])
    variance, quantile = noise_level(evaluation.phi, freedom, noise)
    covariance_t = np.full((len(held), len(held)), np.nan)
    covariance_t[np.ix_(~held, ~held)] = variance * inverse_gram(evaluation.jacobian[:, ~held])
    std_t = np.sqrt(np.diag(covariance_t))
    t = torch.as_tensor(evaluation.t)
    slopes = (
        torch.func.jacfwd(lambda t: _stacked(problem, t))(t).numpy() if len(held) else np.zeros((_size(problem), 0))
    )
    covariance = _propagated(slopes, covariance_t)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance_t / np.outer(std_t, std_t)
    lower95, upper95 = _interval(problem, evaluation.t, quantile * std_t)
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
        variance=variance,
        degrees_of_freedom=freedom,
        quantile=quantile,
    )


def degrees_of_freedom(jacobian: np.ndarray) -> int:
    """Rows less the rank: directions that the data do not see take no freedom from the noise."""
    scale = np.linalg.norm(jacobian, axis=0)
    singular = np.linalg.svd(jacobian / np.where(scale == 0, 1.0, scale), compute_uv=False)
    return len(jacobian) - int(np.sum(singular > NULL * singular.max(initial=0.0)))


def noise_level(phi: float, freedom: int, noise: Noise) -> tuple[float, float]:
    """s^2 and the two-sided 95 % quantile; NaN when nothing is left over to estimate the noise from."""
    if noise is Noise.KNOWN:
        return 1.0, float(stats.norm.ppf(0.975))
    if freedom <= 0:
        return math.nan, math.nan
    return phi / freedom, float(stats.t.ppf(0.975, freedom))


def inverse_gram(jacobian: np.ndarray) -> np.ndarray:
    """(J^T J)^-1 through the singular values of J with columns of unit length; infinite along null directions."""
    scale = np.linalg.norm(jacobian, axis=0)
    empty = scale == 0
    scale[empty] = 1.0
    _, singular, v = np.linalg.svd(jacobian / scale, full_matrices=len(jacobian) < len(scale))
    singular = np.concatenate([singular, np.zeros(len(v) - len(singular))])
    null = singular <= NULL * max(singular.max(initial=0.0), 1e-300)
    kept = v[~null] / singular[~null, None]
    inverse = kept.T @ kept
    unknown = np.any(np.abs(v[null]) > 1e-6, axis=0)
    inverse[unknown, :] = inverse[:, unknown] = np.nan
    inverse[unknown, unknown] = np.inf
    return inverse / np.outer(scale, scale)


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
