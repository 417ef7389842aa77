"""Do the residuals look like noise? Runs of equal sign and the lag-1 autocorrelation, by group, in the order of the file.

Linear statistics take the errors for independent. Neighbouring residuals of equal sign say that they are not, and then
the standard deviations are too small. Runs: the sign changes of independent errors, symmetric about zero, are binomial
(n - 1, 1/2), so that a group that lies on one side of its model is told as well. By how much they are too small differs
between parameters, and only the covariance for correlated errors says it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.problem import CalibrationProblem

FEWEST = 10
"""Groups with fewer fitted rows say nothing."""
ROUND_OFF = 1e-9
"""Residuals below this fraction of the predictions are what solvers and arithmetic leave, and no noise."""
CLEAR = 3.0
"""Deviations from randomness above this many standard errors (one chance in 700) are told."""
NAMED = 5
"""At most so many groups are named in a sentence."""


@dataclass(frozen=True)
class Randomness:
    """Runs of equal sign among a group's fitted residuals, how many noise would have, and the lag-1 autocorrelation."""

    label: str
    rows: int
    runs: int
    expected_runs: float
    runs_deviation: float
    autocorrelation: float

    @property
    def random(self) -> bool:
        """False where runs are too few, or neighbours too alike, by more than CLEAR standard errors."""
        return self.runs_deviation > -CLEAR and self.autocorrelation * math.sqrt(self.rows) < CLEAR


def randomness(problem: CalibrationProblem, evaluation: Evaluation) -> list[Randomness]:
    """One entry for each group with at least FEWEST fitted rows whose residuals are more than round-off."""
    weight, prediction = problem.weight.numpy(), torch.as_tensor(evaluation.prediction)
    weighted, size = problem.misfit.residual(prediction).numpy(), problem.misfit.size(prediction).amax(0).numpy()
    measured = (weight > 0) & (problem.misfit.limit == 0).numpy()
    found = []
    for experiment, group, rows in problem.groups:
        fitted = rows[measured[rows]]
        residual = weighted[fitted]
        predicted = size[fitted]
        round_off = np.linalg.norm(residual) <= ROUND_OFF * np.linalg.norm(predicted)
        if len(residual) >= FEWEST and not round_off:
            found.append(_of_group(problem.group_label(experiment, group), residual))
    return found


def sentence(groups: list[Randomness], factors: Mapping[str, float]) -> str:
    """What a reader must know of groups whose residuals are not random, "" if there are none.

    factors: label -> how many times too small its standard deviation is, by the covariance for correlated errors.
    """
    bad = [g for g in groups if not g.random]
    if not bad:
        return ""
    named = [
        f"{g.label} ({g.runs} runs of equal sign where noise has {g.expected_runs:.0f}, lag-1 autocorrelation {g.autocorrelation:.2f})"
        for g in bad[:NAMED]
    ]
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return (
        f"The residuals of {', '.join(named)}{more} are not random: the model or the data err systematically there, and "
        f"the standard deviations are too small{_by_how_much(factors)} because they take the errors for independent"
        + ("; those for correlated errors stand beside them" if factors else "")
    )


def _by_how_much(factors: Mapping[str, float]) -> str:
    grown = sorted(((f, label) for label, f in factors.items() if f > 1.05), reverse=True)
    if not grown:
        return ""
    more = f" and {len(grown) - NAMED} more" if len(grown) > NAMED else ""
    return ", by a factor of " + ", ".join(f"{f:.1f} ({label})" for f, label in grown[:NAMED]) + more + ","


def _of_group(label: str, residual: np.ndarray) -> Randomness:
    positive = residual > 0
    n = len(residual)
    runs = 1 + int(np.sum(positive[1:] != positive[:-1]))
    # Noise changes sign at every other row, whatever the share of signs: a group that lies on one side is not random.
    expected, variance = (n + 1) / 2, (n - 1) / 4
    power = float(residual @ residual)
    return Randomness(
        label=label,
        rows=n,
        runs=runs,
        expected_runs=expected,
        runs_deviation=(runs - expected) / math.sqrt(variance),
        autocorrelation=float(residual[1:] @ residual[:-1]) / power if power > 0 else 0.0,
    )
