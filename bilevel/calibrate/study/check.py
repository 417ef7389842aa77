"""What `bilevel check` says of a study: what was read, one simulation, and whether the gradient of phi is right."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.study.study import Study
from bilevel.implicit.checks import check_gradient
from bilevel.implicit.outer_gradient import gradient


def check_study(study: Study) -> tuple[str, bool]:
    """A text for the user, and whether all is well."""
    problem = study.problem
    t = torch.as_tensor(problem.parameters.start())
    lines = [f"{study.path}: valid", *_contents(problem)]
    phi = _phi(problem, t)
    lines.append(f"one simulation at the start values: phi = {float(phi):.6g}")
    if not len(t):
        return "\n".join([*lines, "no free parameter, so there is no gradient to check"]), True
    check = check_gradient(lambda t: _phi(problem, t), t, verbose=False)
    certificate = gradient(lambda t: _phi(problem, t), t).report
    return "\n".join([*lines, str(certificate), str(check)]), check.ok


def _contents(problem: CalibrationProblem) -> list[str]:
    free = len(problem.parameters.free)
    lines = [
        f"{len(problem.parameters.parameters)} parameters, {free} of them free ({problem.parameters.size} unknowns)"
    ]
    for experiment, group, rows in problem.groups:
        fitted = int((problem.weight[rows] > 0).sum())
        lines.append(f"group {problem.group_label(experiment, group)}: {len(rows)} rows, {fitted} fitted")
    return lines


def _phi(problem: CalibrationProblem, t: Tensor) -> Tensor:
    weighted = problem.weight * (problem.predict(t) - problem.value)
    return (weighted**2).sum() + (problem.parameters.prior_residual(t) ** 2).sum()
