"""One inverse problem at many lambdas: what has been tried, and what was noticed on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from bilevel.inversion.priors import Prior
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import ConvergenceError


@dataclass
class LambdaTrial:
    """One lambda that was tried: the misfit |A x - y|, the penalty g(x) and the estimate."""

    weight: float
    misfit: float
    penalty: float
    x: Tensor


@dataclass
class InverseProblem:
    """One inverse problem; remembers what has been tried, and starts from the nearest.

    notes: sentences about the choice of lambda that its user should read.
    """

    A: LinearMap
    y: Tensor
    prior: Prior
    trials: list[LambdaTrial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def scale(self) -> float:
        """The prior's lambda of natural size, in the units of operator and data."""
        scale = self.prior.scale(self.A, self.y)
        if not 0 < scale < math.inf:
            raise ConvergenceError(
                f"no lambda can be sought: its natural size for this operator and these data is {scale:g}; "
                "are the data all zero, or orthogonal to all that the operator can give?"
            )
        return scale

    def at(self, log_ratio: float) -> LambdaTrial:
        """Solve at lambda = exp(log_ratio) times `scale`."""
        return self.solve(math.exp(log_ratio) * self.scale)

    def solve(self, weight: float) -> LambdaTrial:
        """Solve at lambda = `weight`."""
        nearest = min(self.trials, key=lambda t: abs(math.log(t.weight / weight)), default=None)
        x = self.prior.solve(self.A, self.y, weight, None if nearest is None else nearest.x)
        trial = LambdaTrial(weight, float((self.A(x) - self.y).norm()), self.prior.penalty(x), x)
        self.trials.append(trial)
        return trial
