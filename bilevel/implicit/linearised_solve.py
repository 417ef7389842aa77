"""One inner solve as the implicit layers see it: its solution, and linear solves with its tangent, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bilevel.implicit.strategies import Adjoint, Exact, Neumann, Unrolled
from bilevel.linalg import refine
from bilevel.linalg.direct.condition import random_signs
from bilevel.linalg.direct.reused import made_for
from bilevel.linalg.krylov.solvers import IterativeFactor
from bilevel.linalg.operator import Dense, LinearOperator, MatrixFree, Sparse
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.linalg.sparse_batch import SparseBatch
from bilevel.problem import DENSE_LIMIT, FixedPoint, Params, Problem
from bilevel.report import BilevelError, DerivativeError, GradientReport, OnFail, fail
from bilevel.solvers.solver import Outcome, Solver
from bilevel.torch_internals import Constants, is_transformed, jvp

Leaves = Sequence[Tensor]

SEVERAL = 2
"""Directions from which on a model's own derivative in all of its parameters is cheaper than one derivative each."""

MANY = 8
"""Right-hand sides beyond which the factorisation of a tangent that is a step away costs more than a new one."""

CHANGED = 1e3
"""How many rounding errors of its terms the residual may move by when it is evaluated again."""

SAME_TANGENT = 1e-9
"""Relative difference between products with an assembled tangent and by autodiff that rounding may explain."""


@dataclass
class LinearisedSolve:
    """One inner solve: everything but the tensors that it is differentiated in."""

    problem: Problem
    rebuild: Callable[[Sequence[Tensor | None]], Params]
    names: list[str]
    solver: Solver
    adjoint: Adjoint
    on_fail: OnFail
    outcome: Outcome | None = None
    factor: Factor | None = None
    gradients: list[GradientReport] = field(default_factory=list)
    constants: Constants = field(default_factory=Constants)
    derivative_checked: bool = False
    _linearised: tuple[Tensor, LinearOperator] | None = None
    _dense: tuple[LinearOperator, Factor] | None = None
    _tangents: list[tuple[Tensor, LinearOperator]] = field(default_factory=list)
    _verified: bool = False

    @property
    def linear(self) -> LinearSolver:
        return self.solver.linear

    def residual(self, u: Tensor, *leaves: Tensor) -> Tensor:
        return self.problem.residual(u, self.rebuild(leaves))

    def apply(self, u: Tensor, leaves: Leaves, x: Tensor, transposed: bool) -> Tensor:
        """Tangent (or its transpose) times x (..., *batch, n), differentiable in everything."""
        params = self.rebuild(leaves)
        product = self.problem.product_transposed if transposed else self.problem.product
        if x.dim() == u.dim():
            return product(u, params, x)
        rows = x.reshape(-1, *u.shape)  # of batched cotangents or tangents, in second derivatives
        return torch.vmap(lambda row: product(u, params, row))(rows).reshape(x.shape)

    def parameter_vjp(
        self, adjoint: Tensor, u: Tensor, leaves: Leaves, wanted: Sequence[bool], with_unknown: bool
    ) -> list[Tensor]:
        """The derivatives of adjoint . r(u, leaves) in the wanted leaves, after the one in u where `with_unknown`; in numbers."""
        v = u.detach().requires_grad_(with_unknown)
        own = [leaf.detach().requires_grad_(want) for leaf, want in zip(leaves, wanted, strict=True)]
        targets = [tensor for tensor in (v, *own) if tensor.requires_grad]
        return self.problem.parameter_vjp(v, self.rebuild(own), adjoint, targets)

    def parameter_jvp(self, u: Tensor, leaves: Leaves, moved: Sequence[Tensor | None]) -> Tensor:
        """The residual's derivatives (m, *batch, n) in m directions (m, ...) of the leaves that move; in numbers."""
        rows = len(next(move for move in moved if move is not None))
        if rows >= SEVERAL:
            directions = [self.rebuild([None if d is None else d[k] for d in moved]) for k in range(rows)]
            known = self.problem.parameter_jvp(u, self.rebuild(leaves), directions)
            if known is not None:
                return known
        return self.jvp_by_autodiff(u, leaves, {i: move for i, move in enumerate(moved) if move is not None})

    def jvp_by_autodiff(self, u: Tensor, leaves: Leaves, moved: Mapping[int, Tensor]) -> Tensor:
        """The same by one derivative of the residual for each direction (m, ...), given by the leaf's place."""

        def residual(*chosen: Tensor) -> Tensor:
            filled = list(leaves)
            for place, leaf in zip(moved, chosen, strict=True):
                filled[place] = leaf
            return self.residual(u, *filled)

        start = tuple(leaves[place] for place in moved)
        if len(next(iter(moved.values()))) == 1:
            return jvp(residual, start, [move[0] for move in moved.values()]).unsqueeze(0)
        return torch.vmap(lambda *move: jvp(residual, start, move))(*moved.values())

    def run(self, u0: Tensor, leaves: Leaves) -> Tensor:
        """Solve, note how it ended, complain as asked."""
        self.outcome = self.solver.solve(
            self.problem, u0, self.rebuild(leaves), record=isinstance(self.adjoint, Unrolled)
        )
        self.factor = self.outcome.factor
        remarks = self.problem.remarks(self.outcome.u, self.rebuild(leaves))
        self.outcome.report.notes += remarks
        if not self.outcome.report.converged:
            fail("; ".join([self.outcome.report.sentence, *remarks]), self.on_fail)
        if any(leaf.requires_grad for leaf in leaves):
            self.operator(self.outcome.u, leaves)  # for the adjoint, which is to cost no more than a back-substitution
        return self.outcome.u.clone()  # autograd wants an output that is not an input, even where no step was taken

    def operator(self, u: Tensor, leaves: Leaves) -> LinearOperator:
        """The tangent at u: dense where it is small, sparse where the problem assembles it, else by products."""
        if u.shape[-1] <= DENSE_LIMIT or u.dim() > 1:
            return self._dense_tangent(u, leaves)
        if self._linearised is None or not torch.equal(self._linearised[0], u):
            known = self.outcome.tangent if self.outcome is not None and torch.equal(self.outcome.u, u) else None
            tangent = self.problem.tangent(u, self.rebuild(leaves)) if known is None else known
            self._verified = not isinstance(tangent, Sparse)
            self._linearised = (u, tangent if isinstance(tangent, Sparse) else self._products(u, leaves))
        return self._linearised[1]

    def _dense_tangent(self, u: Tensor, leaves: Leaves) -> LinearOperator:
        """As `operator`; made once for the solution and once for a better one, as a gradient and its certificate ask for it."""
        if any(is_transformed(x) for x in (u, *leaves)):
            return self.problem.tangent(u, self.rebuild(leaves))
        if not self._tangents and self.outcome is not None and self.outcome.tangent is not None:
            self._tangents.append((self.outcome.u, self.outcome.tangent))
        for at, tangent in self._tangents:
            if at is u or torch.equal(at, u):
                return tangent
        tangent = self.problem.tangent(u, self.rebuild(leaves))
        self._tangents = [*self._tangents[-1:], (u.detach(), tangent)]
        return tangent

    def verify_tangent(self, u: Tensor, leaves: Leaves) -> bool:
        """Whether the tangent at u is the residual's derivative; if not, its products are taken by autodiff from now on.

        An assembled tangent may be an approximation, good enough for solvers but not for derivatives.
        """
        operator = self.operator(u, leaves)
        if isinstance(operator, Dense | SparseBatch) or self._verified:  # batches were found by products of autodiff
            return True
        self._verified = True
        x = random_signs(u.shape[-1]).to(u)
        image = self.apply(u, leaves, x, transposed=False)
        difference = torch.linalg.vector_norm(operator.matmul(x) - image)
        same = max(SAME_TANGENT, 1e3 * torch.finfo(u.dtype).eps)
        if bool(difference <= same * torch.linalg.vector_norm(image)):
            return True
        self._linearised = (u, self._products(u, leaves))
        return False

    def _products(self, u: Tensor, leaves: Leaves) -> MatrixFree:
        return MatrixFree(
            u.shape[-1],
            lambda x: self.apply(u, leaves, x, transposed=False),
            lambda x: self.apply(u, leaves, x, transposed=True),
            self.problem.structure,
            dtype=u.dtype,
            device=u.device,
        )

    def residual_at(self, u: Tensor, leaves: Leaves) -> Tensor:
        """The residual at u, as the solver left it where that is known."""
        outcome = self.outcome
        if outcome is not None and outcome.point is not None and torch.equal(outcome.u, u):
            return outcome.point.residual
        return self.residual(u, *leaves)

    def require_unchanged(self, u: Tensor, leaves: Leaves) -> None:
        """Raise DerivativeError if the problem is no longer the one whose solution u is.

        A function may close over what changes between forward and backward: a loop's variable, a tensor changed in place,
        an attribute, random numbers. The derivative would then be that of another problem.
        """
        outcome = self.outcome
        if outcome is None or outcome.point is None or not torch.equal(outcome.u, u):
            return
        now, then = self.residual(u, *leaves), outcome.point.residual
        rounding = (
            CHANGED * torch.finfo(u.dtype).eps * torch.linalg.vector_norm(self.operator(u, leaves).absolute(u), dim=-1)
        )
        change = torch.linalg.vector_norm(now - then, dim=-1)
        allowed = torch.maximum(outcome.report.tolerance.reshape(change.shape).to(change), rounding)
        if bool((change > allowed).any()):
            raise DerivativeError(
                f"the problem has changed since it was solved: its residual at the solution moved by {float(change.max()):.2g}. "
                "It depends on something that is not among its parameters and has another value now (the variable of a "
                "loop, a tensor changed in place, an attribute, random numbers); pass it in `params`"
            )

    def solve(self, b: Tensor, u: Tensor, leaves: Leaves, transposed: bool, tolerance: float) -> Tensor:
        """H^-1 b (or H^-T b) for b (..., *batch, n); large problems start from the solver's last factorisation."""
        operator = self.operator(u, leaves)
        if isinstance(operator, Dense):
            if self._dense is None or self._dense[0] is not operator:
                self._dense = operator, self.linear.factor(operator)
            return refine(self._dense[1], operator, b, transposed=transposed, tolerance=tolerance)
        rows = b.numel() // u.numel()
        self._prepare_for_many(operator, rows)
        # The last factorisation of the solver is that of a tangent near this one: as a preconditioner it saves a new one.
        if self.factor is not None:
            try:
                return refine(self.factor, operator, b, transposed=transposed, tolerance=tolerance)
            except BilevelError:
                self.factor = None  # too far from the tangent here to be of use
        self.factor = self.linear.factor(
            operator if isinstance(operator, Sparse | SparseBatch) else self.problem.tangent(u, self.rebuild(leaves))
        )
        return refine(self.factor, operator, b, transposed=transposed, tolerance=tolerance)

    def _prepare_for_many(self, operator: LinearOperator, rows: int) -> None:
        """Factorise anew where that, or another solver, pays for so many right-hand sides."""
        if not isinstance(operator, Sparse):
            return
        iterative = self.factor is None or isinstance(self.factor, IterativeFactor)
        better = self.linear.resolve(operator, rows)
        if iterative and better != self.linear.resolve(operator):
            self.factor = better.factor(operator)
        elif not iterative and rows > MANY and not made_for(operator, self.factor):
            self.factor = self.linear.factor(operator)

    def solve_adjoint(self, b: Tensor, u: Tensor, leaves: Leaves) -> Tensor:
        """The adjoint for cotangents b (..., *batch, n) by this layer's strategy."""
        if isinstance(self.adjoint, Neumann):
            return self._neumann(b, u, leaves, self.adjoint.terms)
        return self.solve(b, u, leaves, transposed=True, tolerance=self.linear_tolerance)

    @property
    def certifies(self) -> bool:
        """Whether the error of each gradient is to be estimated."""
        return not isinstance(self.adjoint, Exact) or self.adjoint.certify

    @property
    def linear_tolerance(self) -> float:
        return self.adjoint.tolerance if isinstance(self.adjoint, Exact) else Exact().tolerance

    def _neumann(self, b: Tensor, u: Tensor, leaves: Leaves, terms: int) -> Tensor:
        operator = self.operator(u, leaves)
        metric = 1.0 if isinstance(self.problem, FixedPoint) else 1.0 / _norm_estimate(operator, b)
        adjoint = metric * b
        for _ in range(terms - 1):
            adjoint = adjoint + metric * (b - operator.matmul_transposed(adjoint))
        return adjoint


def _norm_estimate(operator: LinearOperator, like: Tensor) -> float:
    """||H|| by power iteration on H^T H (15 products each way)."""
    shape = like.shape[like.dim() - 1 - len(operator.batch) :]
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).to(like)  # torch refuses to draw under vmap
    norm = 1.0
    for _ in range(15):
        x = operator.matmul_transposed(operator.matmul(x / torch.linalg.vector_norm(x)))
        norm = float(torch.linalg.vector_norm(x)) ** 0.5
    return norm
