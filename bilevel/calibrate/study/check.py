"""What `bilevel check` says of a study: what was read, one evaluation as a run would make it, and whether it is right."""

from __future__ import annotations

from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.statistics.derivative_check import TRUSTED, certificate, check_derivatives
from bilevel.calibrate.statistics.noise import require_sigma
from bilevel.calibrate.study.study import Study


def check_study(study: Study) -> tuple[str, bool]:
    """A text for the user, and whether all is well: the Jacobian of a run, by its own path, parameter by parameter."""
    problem = study.problem
    require_sigma(problem, study.settings.noise)
    evaluation = problem.evaluate(problem.parameters.start())
    lines = [f"{study.path}: valid", *_contents(problem)]
    lines.append(f"one simulation at the start values: phi = {evaluation.phi:.6g}")
    if not problem.parameters.size:
        return "\n".join([*lines, "no free parameter, so there is no gradient to check"]), True
    check = check_derivatives(problem, evaluation, apart=True)
    certified = certificate(problem, evaluation.t)
    lines += [str(certified), "derivatives against finite differences, relative:"]
    lines += [f"  {name}: {error:.1e}" for name, error in check.errors.items()]
    lines += [f"  {name}: no fitted observation depends on it" for name in check.unseen if name not in check.cut]
    right = not check.sentences and certified.relative_error <= TRUSTED
    return "\n".join([*lines, *check.sentences, f"verdict: {'right' if right else 'WRONG'}"]), right


def _contents(problem: CalibrationProblem) -> list[str]:
    free = len(problem.parameters.free)
    lines = [
        f"{len(problem.parameters.parameters)} parameters, {free} of them free ({problem.parameters.size} unknowns)"
    ]
    for experiment, group, rows in problem.groups:
        fitted = int((problem.weight[rows] > 0).sum())
        lines.append(f"group {problem.group_label(experiment, group)}: {len(rows)} rows, {fitted} fitted")
    return lines
