"""The gradient certificate: how far a gradient is from the one at the exact state and adjoint.

The estimate is the change of the gradient under one (if need be several) Newton corrections of the state, with the
adjoint solved anew there. It is asymptotically exact: the corrected gradient's error is of second order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.implicit.derivative_check import require_derivative
from bilevel.implicit.linearised_solve import LinearisedSolve
from bilevel.linalg.solver import LinearSolver
from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, ConvergenceError, Counts, DerivativeError, GradientReport, SolveReport, Status
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Outcome, Solver
from bilevel.torch_internals import pytree

CORRECTION = 1e-3
"""Relative residual of the solves for corrections: an estimate of an error needs no more."""
SUSPICIOUS = 1e-7
"""A relative defect of the adjoint at the corrected state from which the assembled tangent is checked by autodiff."""
CONTRACTION = 0.1
"""A correction that leaves more than this share of the residual is followed by full Newton iterations."""


def polish(linearised: LinearisedSolve, u: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A state clearly closer to the solution than u, and its residual: one Newton correction with what is factorised, or more.

    A problem that is no longer the one that was solved shows in a residual that does not shrink; DerivativeError then.
    """
    residual = linearised.residual_at(u, leaves)
    size = torch.linalg.vector_norm(residual, dim=-1)
    if not bool((size > 0).any()):
        linearised.require_unchanged(u, leaves)
        return u, residual
    corrected = u - linearised.solve(residual, u, leaves, transposed=False, tolerance=CORRECTION)
    residual = linearised.residual(corrected, *leaves)
    left = torch.linalg.vector_norm(residual, dim=-1)
    level = 1e3 * torch.finfo(u.dtype).eps * torch.linalg.vector_norm(linearised.operator(u, leaves).matmul(u), dim=-1)
    if bool((left <= torch.maximum(CONTRACTION * size, level)).all()):
        return corrected, residual
    linearised.require_unchanged(u, leaves)
    closer = Tolerance(relative=0.0, absolute=CONTRACTION * float(size[size > 0].min()))
    newton = Newton(linear=linearised.linear, tolerance=closer, max_iterations=50, check_minimum=False)
    found = newton.solve(linearised.problem, u, linearised.rebuild(leaves))
    if not found.report.converged and bool((found.report.residual > CONTRACTION * size).any()):
        raise ConvergenceError("no state closer to a solution was found, so the error of the gradient is unknown")
    return found.u, linearised.residual(found.u, *leaves)


@dataclass
class Polish(Solver):
    """Solves by correcting the state of an earlier solve of the same layer."""

    earlier: LinearisedSolve
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def linear(self) -> LinearSolver:  # type: ignore[override]
        return self.earlier.linear

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        assert self.earlier.outcome is not None
        flat, _ = pytree.tree_flatten(params)
        leaves = [leaf for leaf in flat if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        with torch.no_grad():
            u, residual = polish(self.earlier, self.earlier.outcome.u, leaves)
            norm = torch.linalg.vector_norm(residual, dim=-1)
        report = SolveReport([Status.CONVERGED] * max(1, norm.numel()), norm, norm, 1, Counts(), 0.0)
        return Outcome(u, report, self.earlier.factor)


def corrected_gradient(
    linearised: LinearisedSolve, cotangent: Tensor, u: Tensor, leaves: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[list[Tensor], GradientReport]:
    """The vector-Jacobian product -(dr/dp)^T H^-T cotangent in the wanted leaves, with its report; in numbers.

    Taken at a corrected state, with the adjoint of the state found: what is left is the effect of the correction on the
    adjoint, which is the estimate. Three sweeps over the residual and one accurate solve make up the price.
    """
    started = time.perf_counter()
    adjoint = linearised.solve_adjoint(cotangent, u, leaves)
    try:
        better, residual = polish(linearised, u, leaves)
        image, *gradient = linearised.parameter_vjp(adjoint, better, leaves, wanted, with_unknown=True)
        if _misfit(cotangent, image) > SUSPICIOUS and not linearised.verify_tangent(u, leaves):
            return corrected_gradient(linearised, cotangent, u, leaves, wanted)
        if _misfit(cotangent, image) > CONTRACTION:
            return _degenerate_gradient(linearised, cotangent, adjoint, u, better, leaves, wanted, started)
        require_derivative(linearised, better, residual, leaves, wanted, adjoint, [image, *gradient])
        change = linearised.solve(cotangent - image, u, leaves, transposed=True, tolerance=CORRECTION)
        missing = linearised.parameter_vjp(change, better, leaves, wanted, with_unknown=False)
        names = [name for name, want in zip(linearised.names, wanted, strict=True) if want]
        errors = relative_errors(gradient, [g + m for g, m in zip(gradient, missing, strict=True)], names)
    except DerivativeError:
        raise
    except BilevelError:
        gradient, errors = linearised.parameter_vjp(adjoint, u, leaves, wanted, with_unknown=False), {"": math.inf}
        better = None
    return [-g for g in gradient], _report(linearised, cotangent, adjoint, u, leaves, errors, started, better)


def _degenerate_gradient(
    linearised: LinearisedSolve,
    cotangent: Tensor,
    adjoint: Tensor,
    u: Tensor,
    better: Tensor,
    leaves: Sequence[Tensor],
    wanted: Sequence[bool],
    started: float,
) -> tuple[list[Tensor], GradientReport]:
    """The gradient where the tangent changes by its own size within the correction, as at a minimum of fourth order.

    An adjoint of the one state does not fit the other then; each gradient is made at one state alone, and compared.
    """
    note = "the tangent changes by its own size between the state found and a better one: the solution is degenerate"
    _note(linearised, note)
    gradient = linearised.parameter_vjp(adjoint, u, leaves, wanted, with_unknown=False)
    names = [name for name, want in zip(linearised.names, wanted, strict=True) if want]
    try:
        anew = linearised.solve(cotangent, better, leaves, transposed=True, tolerance=linearised.linear_tolerance)
        other = linearised.parameter_vjp(anew, better, leaves, wanted, with_unknown=False)
        errors = relative_errors(gradient, other, names)
    except BilevelError:
        errors = {"": math.inf}
    return [-g for g in gradient], _report(linearised, cotangent, adjoint, u, leaves, errors, started, better)


def _note(linearised: LinearisedSolve, sentence: str) -> None:
    notes = linearised.outcome.report.notes if linearised.outcome is not None else []
    if sentence not in notes:
        notes.append(sentence)


def _misfit(cotangent: Tensor, image: Tensor) -> float:
    """By how much the adjoint equation is violated, relative to its right-hand side."""
    size = float(torch.linalg.vector_norm(cotangent))
    return float(torch.linalg.vector_norm(cotangent - image)) / size if size > 0 else 0.0


def certify(
    linearised: LinearisedSolve, cotangent: Tensor, adjoint: Tensor, u: Tensor, leaves: Sequence[Tensor], started: float
) -> GradientReport:
    """The report of the vector-Jacobian product with adjoint `adjoint` (..., *batch, n) for `cotangent` held fixed."""
    try:
        better, _ = polish(linearised, u, leaves)
        better_adjoint = _corrected(linearised, cotangent, adjoint, u, better, leaves)
        errors = relative_errors(
            _parameter_vjp(linearised, adjoint, u, leaves),
            _parameter_vjp(linearised, better_adjoint, better, leaves),
            linearised.names,
        )
    except BilevelError:
        errors = {"": math.inf}
        better = None
    return _report(linearised, cotangent, adjoint, u, leaves, errors, started, better)


def _report(
    linearised: LinearisedSolve,
    cotangent: Tensor,
    adjoint: Tensor,
    u: Tensor,
    leaves: Sequence[Tensor],
    errors: dict[str, float],
    started: float,
    better: Tensor | None = None,
) -> GradientReport:
    defect = cotangent - linearised.operator(u, leaves).matmul_transposed(adjoint)
    size = float(torch.linalg.vector_norm(cotangent))
    return GradientReport(
        adjoint=linearised.adjoint.name,
        exact=linearised.adjoint.exact,
        inner_residual=float(torch.linalg.vector_norm(linearised.residual_at(u, leaves))),
        adjoint_residual=float(torch.linalg.vector_norm(defect)) / size if size > 0 else 0.0,
        relative_error=errors.pop(""),
        by_parameter=errors,
        seconds=time.perf_counter() - started,
        state_correction=math.nan if better is None else float(relative_change(u, better)),
    )


def relative_change(u: Tensor, better: Tensor) -> Tensor:
    """||better - u|| / ||better||, 0 at the origin."""
    size = torch.linalg.vector_norm(better)
    return torch.linalg.vector_norm(better - u) / size if bool(size > 0) else torch.zeros_like(size)


def _corrected(
    linearised: LinearisedSolve, cotangent: Tensor, adjoint: Tensor, u: Tensor, better: Tensor, leaves: Sequence[Tensor]
) -> Tensor:
    """The adjoint at `better` from the one at u: one correction with the tangent at u."""
    defect = cotangent - linearised.apply(better, leaves, adjoint, transposed=True)
    return adjoint + linearised.solve(defect, u, leaves, transposed=True, tolerance=CORRECTION)


def certify_against_exact(
    linearised: LinearisedSolve, gradient: list[Tensor], cotangent: Tensor, leaves: Sequence[Tensor], started: float
) -> GradientReport:
    """The report of a vector-Jacobian product that was made without an adjoint (an unrolled one)."""
    assert linearised.outcome is not None
    u = linearised.outcome.u
    with torch.no_grad():
        try:
            better, _ = polish(linearised, u, leaves)
            adjoint = linearised.solve(cotangent, better, leaves, transposed=True, tolerance=1e-13)
            errors = relative_errors(gradient, _parameter_vjp(linearised, adjoint, better, leaves), linearised.names)
        except BilevelError:
            errors = {"": math.inf}
        residual = linearised.residual(u, *leaves)
    return GradientReport(
        adjoint=linearised.adjoint.name,
        exact=False,
        inner_residual=float(torch.linalg.vector_norm(residual)),
        adjoint_residual=math.nan,
        relative_error=errors.pop(""),
        by_parameter=errors,
        seconds=time.perf_counter() - started,
    )


def _parameter_vjp(linearised: LinearisedSolve, adjoint: Tensor, u: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """-(dr/dp)^T adjoint for each parameter, for any number of leading right-hand sides."""
    vjp = torch.func.vjp(lambda *p: linearised.residual(u, *p), *leaves)[1]
    if adjoint.dim() == u.dim():
        return list(vjp(-adjoint))
    many = adjoint.reshape(-1, *u.shape)
    return list(torch.vmap(vjp)(-many))


def relative_errors(gradient: Sequence[Tensor], reference: Sequence[Tensor], names: Sequence[str]) -> dict[str, float]:
    """||g - g*|| / ||g*|| for all parameters together (key "") and for each by name."""
    differences = [float(torch.linalg.vector_norm(g - r)) for g, r in zip(gradient, reference, strict=True)]
    sizes = [float(torch.linalg.vector_norm(r)) for r in reference]
    errors = {name: _ratio(d, s) for name, d, s in zip(names, differences, sizes, strict=True)}
    return errors | {"": _ratio(math.hypot(*differences), math.hypot(*sizes))}


def _ratio(difference: float, size: float) -> float:
    """difference / size, never below rounding: no computed gradient is better than that."""
    if size == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return max(difference / size, torch.finfo(torch.float64).eps)
