"""One call: data, operator, prior, rule for lambda; out comes the estimate and what was done."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from bilevel.inversion.choice import Choice
from bilevel.inversion.priors import Prior
from bilevel.inversion.problem import InverseProblem, LambdaTrial
from bilevel.linalg.linear_map import LinearMap, as_linear_map
from bilevel.report import InputError


@dataclass
class Inversion:
    """The estimate x (*domain), the chosen lambda, the misfit |A x - y|, and all trials that led there.

    notes: what makes the choice of lambda doubtful, a sentence each.
    """

    x: Tensor
    weight: float
    misfit: float
    prior: str
    choice: str
    trials: list[LambdaTrial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What was done, in one sentence, and what is doubtful about it."""
        done = f"{self.prior} with lambda = {self.weight:.3g} by {self.choice} ({len(self.trials)} solves), misfit {self.misfit:.3g}"
        return "; ".join([done, *self.notes])


def invert(A: LinearMap | Tensor, y: Tensor, prior: Prior, choice: Choice) -> Inversion:
    """Estimate x from y = A x + noise, minimising |A x - y|^2 / 2 + lambda g(x).

    y has the shape of the operator's range (one sample). Raises InputError for data that do not fit or are not finite,
    ConvergenceError where a solver or the rule for lambda fails.
    """
    A, y = as_linear_map(A), torch.as_tensor(y)
    A.check_data(y)
    if y.numel() == 0 or prod(A.domain) == 0:
        raise InputError(f"an inversion needs data and unknowns, got {y.numel()} data and {prod(A.domain)} unknowns")
    if y.dim() != len(A.range):
        raise InputError(
            f"lambda is chosen for one sample at a time, the data hold a batch {tuple(y.shape)}; invert each"
        )
    if not isinstance(prior, Prior) or not isinstance(choice, Choice):
        raise InputError(
            "invert takes a prior such as Tikhonov() and a rule such as Fixed(0.1) or Discrepancy(sigma=0.01)"
        )
    problem = InverseProblem(A, y, prior)
    trial = choice.choose(problem)
    names = type(prior).__name__, type(choice).__name__
    return Inversion(trial.x, trial.weight, trial.misfit, *names, problem.trials, problem.notes)
