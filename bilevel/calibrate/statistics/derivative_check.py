"""Checks of a Jacobian: against finite differences, of columns that are zero, and by the implicit layers' certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.linearisation import Linearisation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.implicit.outer_gradient import gradient
from bilevel.report import BilevelError, GradientReport, InputError

TRUSTED = 1e-3
"""Relative errors of derivatives above this are told to the user."""
WRONG = 0.1
"""Above this a fit is not worth its price."""
_STEPS = (1e-2, 1e-3, 1e-4)
_APART = 20
"""More parameters than these are moved together."""


@dataclass
class DerivativeCheck:
    """How a Jacobian stands against what the predictions do.

    errors: what was moved -> relative difference to finite differences. unseen: what no fitted row depends on. cut: parameter -> how far the predictions move
    with it although their derivative is zero. unchecked: why something could not be checked.
    """

    errors: dict[str, float] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    cut: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)

    @property
    def error(self) -> float:
        """The largest of the errors, NaN if there are none."""
        return max(self.errors.values(), default=math.nan)

    @property
    def sentences(self) -> list[str]:
        """What a reader must know, the gravest first."""
        found = [
            f"the predictions change with {label} ({what}), yet their derivative is zero: the model cuts the graph "
            "(.item(), .detach(), float(), .round(), a tensor rebuilt from numbers); keep parameters as tensors"
            for label, what in self.cut.items()
        ]
        found += [
            f"the Jacobian differs from finite differences by {error:.1e} ({label}); "
            "find out why before you trust the result"
            for label, error in self.errors.items()
            if error > TRUSTED
        ]
        return found + [f"the Jacobian could not be checked: {reason}" for reason in self.unchecked]


def check_derivatives(problem: CalibrationProblem, evaluation: Evaluation, apart: bool = False) -> DerivativeCheck:
    """Compare the Jacobian of an evaluated point with what the predictions do; the models keep their states.

    Entries move by about one percent of their own size, within their bounds, all at once (four simulations) or each
    parameter by itself (apart). Columns that are zero move by their own size either way.
    """
    linear = Linearisation(evaluation, problem.parameters)
    check = DerivativeCheck()
    labels = _labels(problem)
    with problem.undisturbed():
        for name, entries in _moved(labels, ~linear.unseen, apart):
            try:
                check.errors[name] = _error(problem, linear, entries)
            except Exception as failure:
                check.unchecked.append(f"moving {name}: {failure}")
        for name, entries in _moved(labels, linear.unseen, True):
            check.unseen.append(name)
            if what := _effect(problem, linear, entries):
                check.cut[name] = what
    return check


def require_right_derivatives(problem: CalibrationProblem, evaluation: Evaluation) -> None:
    """InputError where derivatives are plainly wrong, so that no fit is paid for that follows them."""
    check = check_derivatives(problem, evaluation)
    if check.cut or check.error > WRONG:
        raise InputError(f"at the start values: {check.sentences[0]}")


def certificate(problem: CalibrationProblem, t: np.ndarray) -> GradientReport:
    """The certificate of the gradient of a sum of weighted predictions with signs in turn.

    Not of phi's own gradient, which is zero at the optimum, so that its relative error would say nothing.
    """
    signs = 1.0 - 2.0 * (torch.arange(len(problem.weight)) % 2)
    with problem.undisturbed():
        return gradient(lambda t: (signs * problem.weight * problem.predict(t)).sum(), torch.as_tensor(t)).report


def _labels(problem: CalibrationProblem) -> list[str]:
    return [p.label for p in problem.parameters.free for _ in range(p.size)]


def _moved(labels: list[str], chosen: np.ndarray, apart: bool) -> list[tuple[str, np.ndarray]]:
    names = list(dict.fromkeys(label for label, yes in zip(labels, chosen) if yes))
    if not names:
        return []
    if not apart or len(names) > _APART:
        return [("all parameters" if len(names) > 1 else names[0], chosen)]
    return [(name, chosen & (np.array(labels) == name)) for name in names]


def _error(problem: CalibrationProblem, linear: Linearisation, entries: np.ndarray) -> float:
    """The smallest of the differences over steps: a wrong derivative is wrong with all, a curved model with long ones."""
    found, reason = math.inf, None
    for step in _STEPS:
        try:
            found = min(found, _difference(problem, linear, entries, step))
        except BilevelError as failure:  # a model may have limits of its own beside the bounds: shorter steps keep them
            reason = failure
        if found <= TRUSTED:
            break
    if found == math.inf and reason is not None:
        raise reason
    return found


def _difference(problem: CalibrationProblem, linear: Linearisation, entries: np.ndarray, h: float) -> float:
    v = _direction(linear, problem, entries)
    low, high = problem.parameters.bounds()
    room = np.minimum(linear.t - low, high - linear.t)
    tight = room < h * np.abs(v)
    inward = np.where(high - linear.t < linear.t - low, -1.0, 1.0) * np.abs(v)
    worst = 0.0
    for part, one_sided in ((np.where(tight, 0.0, v), False), (np.where(tight, inward, 0.0), True)):
        if not part.any():
            continue
        rows = linear.evaluation.data_rows
        effects = linear.jacobian[:rows] * part
        change = _one_sided(problem, linear, part, h) if one_sided else _central(problem, linear.t, part, h)
        # Predictions have round-off of their own, which a step divides.
        noise = 0.1 * linear.precision * linear.size / h
        # The scale is that of the parameters' own effects: those of collinear ones may cancel in the sum.
        missed = max(float(np.linalg.norm(change - effects.sum(axis=1))) - noise, 0.0)
        worst = max(worst, missed / float(np.linalg.norm(effects)))
    return worst


def _central(problem: CalibrationProblem, t: np.ndarray, v: np.ndarray, h: float) -> np.ndarray:
    """(4 D(h/2) - D(h)) / 3."""

    def difference(h: float) -> np.ndarray:
        return (_weighted(problem, t + h * v) - _weighted(problem, t - h * v)) / (2 * h)

    return (4 * difference(h / 2) - difference(h)) / 3


def _one_sided(problem: CalibrationProblem, linear: Linearisation, v: np.ndarray, h: float) -> np.ndarray:
    """(8 D(h/4) - 6 D(h/2) + D(h)) / 3, for entries that have no room on one side."""
    here = _weighted(problem, linear.t)

    def difference(h: float) -> np.ndarray:
        return (_weighted(problem, linear.t + h * v) - here) / h

    return (8 * difference(h / 4) - 6 * difference(h / 2) + difference(h)) / 3


def _direction(linear: Linearisation, problem: CalibrationProblem, entries: np.ndarray) -> np.ndarray:
    """A move of the entries by their own size, or by less where that would change the predictions by more than theirs."""
    norms = np.linalg.norm(linear.jacobian[: linear.evaluation.data_rows], axis=0)
    effect = np.divide(linear.size, norms, out=np.zeros_like(norms), where=norms > 0)
    signs = np.where(np.arange(len(norms)) % 2 == 0, 1.0, -1.0)
    move = np.minimum(effect, problem.parameters.reach(linear.t)) / math.sqrt(max(int(entries.sum()), 1))
    return np.where(entries, signs * move, 0.0)


def _effect(problem: CalibrationProblem, linear: Linearisation, entries: np.ndarray) -> str:
    """How far the predictions move with entries whose columns are zero, "" if they stay or have a derivative there."""
    low, high = problem.parameters.bounds()
    reach = problem.parameters.reach(linear.t)
    reach = np.where(np.isfinite(reach), reach, 1.0)
    here = _weighted(problem, linear.t)
    for sign in (1.0, -1.0):
        t = np.where(entries, np.clip(linear.t + sign * reach, low, high), linear.t)
        try:
            moved = float(np.linalg.norm(_weighted(problem, t) - here))
            if moved <= linear.precision * linear.size:
                continue
            halfway = 0.5 * (t + linear.t)
            if any(_seen(problem, s, entries) for s in (t, halfway)):  # a flat spot of the model, not of the graph
                continue
        except Exception:  # a model may have limits of its own beside the bounds
            continue
        return f"by {moved / linear.size:.1e} of their size"
    return ""


def _seen(problem: CalibrationProblem, t: np.ndarray, entries: np.ndarray) -> bool:
    linear = Linearisation(problem.evaluate(t), problem.parameters)
    return bool((~linear.unseen[entries]).any())


def _weighted(problem: CalibrationProblem, t: np.ndarray) -> np.ndarray:
    return problem.residual(t)
