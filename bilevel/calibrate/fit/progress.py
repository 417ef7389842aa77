"""A live line on the terminal: iteration, phi by group, gradient norm, inner iterations, gradient error estimate."""

from __future__ import annotations

import math
import sys
from types import TracebackType

import numpy as np
from tqdm import tqdm

from bilevel.calibrate.evaluation import Iteration
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import group_misfits

_GROUPS = 4


class Progress:
    """Shows accepted iterations; silent when standard error is not a terminal."""

    def __init__(self, problem: CalibrationProblem, noptmax: int) -> None:
        self.problem = problem
        self.bar = tqdm(
            total=max(noptmax, 1), unit="it", disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def __call__(self, iteration: Iteration) -> None:
        if not self.bar.disable:
            self.bar.n = min(iteration.number, self.bar.total)
            self.bar.set_postfix_str(describe(self.problem, iteration))


def describe(problem: CalibrationProblem, iteration: Iteration) -> str:
    """phi (by group), gradient norm and what the inner solves did, in one line."""
    evaluation = iteration.evaluation
    groups = group_misfits(problem, evaluation)
    parts = [f"phi {evaluation.phi:.5g}"]
    if 1 < len(groups) <= _GROUPS:
        parts[0] += " (" + ", ".join(f"{g.label} {g.phi:.3g}" for g in groups) + ")"
    parts.append(f"|g| {np.linalg.norm(evaluation.gradient):.2g}")
    if evaluation.inner_solves:
        parts.append(f"inner it {evaluation.inner_iterations}")
    if not math.isnan(evaluation.gradient_error):
        parts.append(f"g err {evaluation.gradient_error:.1g}")
    return ", ".join(parts)
