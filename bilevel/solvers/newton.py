"""Newton's method: line search, trust region or any other step on the linearised problem."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bilevel.linalg import negative_curvature
from bilevel.linalg.operator import Dense, LinearOperator, Sparse
from bilevel.linalg.solver import Factor
from bilevel.linalg.sparse_batch import SparseBatch
from bilevel.report import ConvergenceError
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.solver import Solver
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.step import Step

FIRST_FORCING = 1e-2
"""Relative residual of the first linear solve, where that is iterative; Eisenstat and Walker's rule sets the others."""


class NewtonDirection(Descent):
    """d = -H^-1 r; where an energy's Hessian is not positive definite, a modified one that is.

    Iterative linear solves end early, far from the solution (Eisenstat and Walker 1996, SIAM J. Sci. Comput. 17, 16,
    choice 2), and start from the latest set-up.
    """

    linearises = True

    def __init__(self) -> None:
        self._plain = True
        self._last_norm: float | None = None
        self._shift: float | None = None
        self._bent = False
        self._taken: Tensor | None = None
        self._beside_saddle = False

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        if self._bent and (step := self._offered_step(evaluations, point)) is not None:
            self._taken = step
            return step
        tangent = self.tangent = evaluations.tangent(point.u)
        if isinstance(tangent, SparseBatch) and evaluations.active is not None:
            # Samples that have ended stay where they are: their matrices need no factors, and zeros no solutions.
            tangent = replace(tangent, wanted=evaluations.active)
            point = Point(point.u, point.merit, torch.where(evaluations.active.unsqueeze(-1), point.residual, 0.0))
        self.factor = None  # nor does this keep in memory what is of no more use
        self.factor = evaluations.factor(point.u, evaluations.active)
        known = self.factor.counts.factorisations
        step = self._step(evaluations, point, tangent)
        evaluations.counts.factorisations += self.factor.counts.factorisations - known
        self._taken = step
        return step

    def moved(self, before: Point, after: Point) -> None:
        """Where a step on a matrix other than the tangent had to be shortened, the next tangent will not do either."""
        if self._bent and self._taken is not None:
            self._bent = not torch.equal(after.u, before.u + self._taken)

    def _step(self, evaluations: Evaluations, point: Point, tangent: LinearOperator) -> Tensor:
        assert self.factor is not None
        self.singular = _per_sample(self.factor.singular, point)
        self._plain, self.safe = True, False
        evaluations.counts.back_substitutions += 1
        forcing = self._forcing(evaluations, point)
        if not evaluations.is_energy:
            return -self.factor.solve_roughly(point.residual, forcing)
        if self.factor.positive_definite is None:
            step = -self.factor.solve_roughly(point.residual, forcing)
            if self.factor.positive_definite is None:  # met no negative curvature on the way
                return step
        sound = _per_sample(self.factor.positive_definite, point) & ~self.singular
        if bool(sound.all()):
            self.safe = True
            return -self.factor.solve_roughly(point.residual, forcing)
        self._plain, self.singular = False, torch.zeros_like(sound)
        if isinstance(tangent, Dense):
            bent = -_absolute_solve(tangent, point.residual)
            return torch.where(sound.unsqueeze(-1), -self.factor.solve(point.residual), bent)
        if isinstance(tangent, SparseBatch):
            tangent = replace(tangent, wanted=~sound)
        unsound = torch.where(sound.unsqueeze(-1), 0.0, point.residual)
        bent = -self._definite(evaluations, point, tangent).solve(unsound)
        if not bool(sound.any()):
            return bent
        return torch.where(sound.unsqueeze(-1), -self.factor.solve(point.residual), bent)

    def _forcing(self, evaluations: Evaluations, point: Point) -> float:
        """The relative residual at which an iterative linear solve may stop."""
        if evaluations.goal is None:
            return 0.0
        norm, last = float(point.norm.max()), self._last_norm
        self._last_norm = norm or None
        if norm == 0.0:  # the start is stationary in all samples that still move
            return 0.0
        forcing = FIRST_FORCING if last is None else min(FIRST_FORCING, 0.9 * (norm / last) ** 2)
        return max(forcing, 0.01 * float(evaluations.goal.min()) / norm)

    def left_saddle(self, curvature: float) -> None:
        self._shift, self._beside_saddle = 8 * abs(curvature), True

    def _definite(self, evaluations: Evaluations, point: Point, tangent: LinearOperator) -> Factor:
        """Of the matrix that the problem offers in place of a tangent that is not positive definite, or of a shifted one.

        Beside a saddle that was just left little is wrong with the tangent, and its curvature is known: a shift by twice
        as much bends it least, where the problem's own matrix may be far stiffer along the way down.
        """
        if self._beside_saddle and (factor := self._shifted_once(evaluations, tangent)) is not None:
            return factor
        self._beside_saddle = False
        factor = self._offered(evaluations, point)
        self._bent = factor is not None
        return self._shifted(evaluations, tangent) if factor is None else factor

    def _offered(self, evaluations: Evaluations, point: Point) -> Factor | None:
        """A factor of the problem's own positive definite matrix, where it has one."""
        offered = evaluations.problem.definite_tangent(point.u, evaluations.params)
        if offered is None:
            return None
        evaluations.counts.factorisations += 1
        factor = evaluations.linear.factor(offered, on_fail="ignore")
        return factor if bool(torch.as_tensor(factor.positive_definite).all()) else None

    def _offered_step(self, evaluations: Evaluations, point: Point) -> Tensor | None:
        factor = self._offered(evaluations, point)
        if factor is None:
            return None
        self._plain, self.safe, self.singular = False, False, torch.zeros_like(point.merit, dtype=torch.bool)
        evaluations.counts.back_substitutions += 1
        return -factor.solve(point.residual)

    def _shifted(self, evaluations: Evaluations, tangent: LinearOperator) -> Factor:
        """Factor H + t I, positive definite, with t not far above -lambda_min (Nocedal & Wright 2006, section 3.4)."""
        shift = self._first_shift(evaluations, tangent)
        for _ in range(30):
            evaluations.counts.factorisations += 1
            factor = evaluations.linear.factor(tangent.shifted(shift), on_fail="ignore")
            if bool(torch.as_tensor(factor.positive_definite).all()):
                self._shift = shift
                return factor
            shift *= 4
        raise ConvergenceError(
            f"no multiple of the identity up to {shift:.3g} made the Hessian positive definite; check its scaling"
        )

    def _shifted_once(self, evaluations: Evaluations, tangent: LinearOperator) -> Factor | None:
        """The same with the first shift alone; None where that does not do."""
        evaluations.counts.factorisations += 1
        factor = evaluations.linear.factor(tangent.shifted(self._first_shift(evaluations, tangent)), on_fail="ignore")
        return factor if bool(torch.as_tensor(factor.positive_definite).all()) else None

    def _first_shift(self, evaluations: Evaluations, tangent: LinearOperator) -> float:
        if isinstance(tangent, Sparse | SparseBatch):
            # A failed factorisation costs less than to ask Lanczos for the lowest eigenvalue.
            return self._shift / 4 if self._shift else 1e-3 * float(tangent.diagonal_entries().abs().max()) or 1.0
        lowest = float(negative_curvature(tangent, evaluations.linear, evaluations.counts)[0].min())
        # Lanczos sees the lowest eigenvalue from above only, hence twice as much, and more where that is not enough.
        return max(2 * abs(lowest), 1e-12)

    def metric(self) -> Metric | None:
        if not self._plain or self.factor is None:
            return None
        factor = self.factor
        return lambda r: _FrozenSolve.apply(factor, r)


def _per_sample(flag: bool | Tensor | None, point: Point) -> Tensor:
    return torch.as_tensor(bool(flag) if not isinstance(flag, Tensor) else flag, device=point.u.device).expand(
        point.merit.shape
    )


class _FrozenSolve(torch.autograd.Function):
    """r -> H^-1 r with H held constant, for unrolled adjoints."""

    generate_vmap_rule = False

    @staticmethod
    def forward(factor: Factor, r: Tensor) -> Tensor:
        return factor.solve(r)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.factor = inputs[0]

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        return None, ctx.factor.solve_transposed(cotangent)

    @staticmethod
    def jvp(ctx, _, tangent):  # type: ignore[no-untyped-def]
        return ctx.factor.solve(tangent)


def _absolute_solve(tangent: Dense, residual: Tensor) -> Tensor:
    """|H|^-1 r, with the absolute eigenvalues kept away from zero (saddle-free Newton, Dauphin et al. 2014).

    Where all of them are zero, as of u^4 at 0, downhill by a length of one.
    """
    values, vectors = torch.linalg.eigh(tangent.matrix)
    size = values.abs()
    largest, norm = size.amax(-1, keepdim=True), torch.linalg.vector_norm(residual, dim=-1, keepdim=True)
    floor = torch.where(largest > 0, 1e-8 * largest, torch.where(norm > 0, norm, torch.ones_like(norm)))
    coefficients = (vectors.mT @ residual.unsqueeze(-1)).squeeze(-1) / torch.maximum(size, floor)
    return tangent.structure.project((vectors @ coefficients.unsqueeze(-1)).squeeze(-1))


@dataclass
class Newton(DescentSolver):
    """Newton's method for energies and residuals.

    Step: by default a line search that asks for 0.3 of the decrease which the slope promises: Newton's full step gives
    0.5 near a solution, and much less tells of overshooting, as on energies |x|^p with p < 2. TrustRegion for energies
    with much negative curvature. keeps_factors: go on with a factorisation, updated by what the steps show of the tangent
    (`kept_factor`), as long as each step halves the residual.
    """

    step: Step = field(default_factory=lambda: Armijo(decrease=0.3))
    keeps_factors: bool = field(default=False, kw_only=True)

    def descent(self) -> Descent:
        return NewtonDirection()

    def near(self) -> Solver:
        return replace(self, keeps_factors=True)
