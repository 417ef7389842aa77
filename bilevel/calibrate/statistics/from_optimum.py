"""The fitted part of a problem, taken up again from its optimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.implicit.memory import Memory
from bilevel.implicit.visit import Visit


class FromOptimum(CalibrationProblem):
    """A problem that starts at t, its priors multiplied by a factor, so that they stand beside data of estimated noise."""

    def __init__(
        self,
        problem: CalibrationProblem,
        t: np.ndarray,
        prior_factor: float,
        experiments: Sequence[Experiment] | None = None,
    ) -> None:
        started = problem.parameters.at(t).parameters
        super().__init__(
            started, experiments or problem.experiments, problem.sweep, problem.strength, problem.joint_priors
        )
        self.prior_factor = prior_factor

    def prior_residual(self, t: Tensor) -> Tensor:
        return self.prior_factor * super().prior_residual(t)


def states_at(problem: CalibrationProblem, t: np.ndarray, memory: bool) -> dict[str, Visit]:
    """The inner states at a point with their derivatives, from which solves nearby may start; {} without a memory."""
    found = Memory(points=1 if memory else 0)
    if memory:
        with found.remembering(), problem.undisturbed():
            problem.evaluate(t)
    return found.evaluations[-1] if found.evaluations else {}


def measured(problem: CalibrationProblem) -> list[Experiment]:
    """The experiments without scenarios, whose rows stand last."""
    return [e for e in problem.experiments if not e.parameters_of]
