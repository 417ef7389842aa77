"""Trust region on the quadratic model of an energy (Conn, Gould & Toint 2000)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.operator import Dense, LinearOperator
from bilevel.report import BilevelError, require
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import Move, Step, enough_or_lost_in_noise, select


@dataclass
class TrustRegion(Step):
    """Minimise the quadratic model within a radius that adapts to how well the model predicts the energy.

    Dense Hessians: the exact subproblem (More & Sorensen 1983) by eigenvalues; sparse ones: the Newton step if it is
    admissible, else truncated conjugate gradients (Steihaug 1983). radius: the first one; None takes the size of the
    state, or the Cauchy step's. Raises BilevelError for residual problems, which have no energy to model.
    """

    radius: float | None = None
    accept: float = 1e-4
    max_trials: int = 40
    _radius: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require(self.radius is None or self.radius > 0, f"the first radius must be positive, not {self.radius}")
        require(0 <= self.accept < 1 and self.max_trials >= 1, "accept is a share below 1, max_trials at least 1")

    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        if not evaluations.is_energy:
            raise BilevelError("a trust region needs an energy; use Armijo or Constant steps for a residual problem")
        tangent = evaluations.tangent(point.u)
        radius = self._start(evaluations, point) if self._radius is None else self._radius
        model = (
            _DenseModel(tangent, point.residual)
            if isinstance(tangent, Dense)
            else _ProductModel(evaluations, point, tangent)
        )
        best, accepted = point, ~active
        for _ in range(self.max_trials):
            move = model.minimise(radius)
            trial = evaluations.point(point.u + torch.where(accepted.unsqueeze(-1), torch.zeros_like(move), move))
            predicted = -((point.residual * move).sum(-1) + 0.5 * (move * tangent.matmul(move)).sum(-1))
            ratio = (point.merit - trial.merit) / predicted
            good = trial.finite & (predicted > 0) & (ratio > self.accept)
            passed = ~accepted & enough_or_lost_in_noise(good, evaluations, trial, point, point.merit)
            best = select(passed, trial, best)
            length = torch.linalg.vector_norm(move, dim=-1)
            grown = torch.where((ratio > 0.75) & (length > 0.99 * radius), 2 * radius, radius)
            changed = torch.where(passed & (ratio >= 0.25), grown, 0.25 * torch.minimum(radius, length))
            radius = torch.where(
                accepted, radius, torch.where(passed & (ratio.isnan() | (ratio >= 0.25)), grown, changed)
            )
            accepted = accepted | passed
            if bool(accepted.all()):
                break
        self._radius = radius
        descent.factor, descent.safe = model.factor, model.definite
        return Move(best, radius, accepted)

    def _start(self, evaluations: Evaluations, point: Point) -> Tensor:
        if self.radius is not None:
            return torch.full_like(point.merit, self.radius)
        curvature = (point.residual * evaluations.product(point.u, point.residual)).sum(-1).abs()
        cauchy = point.norm**3 / curvature.clamp(min=1e-300)
        return torch.maximum(torch.linalg.vector_norm(point.u, dim=-1), cauchy.clamp(max=1e6)).clamp(min=1e-8)


class _DenseModel:
    """g.p + p.H p / 2 within ||p|| <= radius, by the eigenvalues of H."""

    factor = None

    def __init__(self, tangent: Dense, gradient: Tensor) -> None:
        self.values, self.vectors = torch.linalg.eigh(tangent.matrix)
        self.gradient = (self.vectors.mT @ gradient.unsqueeze(-1)).squeeze(-1)
        self.tiny = 1e-14 * self.values.abs().amax(-1) + torch.finfo(gradient.dtype).tiny
        self.definite = bool((self.values[..., 0] > self.tiny).all())

    def minimise(self, radius: Tensor) -> Tensor:
        lowest, tiny = self.values[..., 0], self.tiny
        size = self.values.abs().amax(-1)
        inside = lowest > tiny
        free = self._step(torch.zeros_like(lowest))
        interior = inside & (torch.linalg.vector_norm(free, dim=-1) <= radius)
        low = torch.clamp(-lowest, min=0) + tiny
        # ||p(t)|| falls monotonically in the shift t above -lowest, and at this upper end it is below the radius. Bisection
        # is enough: the eigenvalues are known, so each step costs a division by entry, and a whole batch moves together.
        high = low + torch.linalg.vector_norm(self.gradient, dim=-1) / radius + size
        for _ in range(100):
            middle = 0.5 * (low + high)
            long = torch.linalg.vector_norm(self._step(middle), dim=-1) > radius
            low, high = torch.where(long, middle, low), torch.where(long, high, middle)
        bound = self._step(high)
        # Hard case: the gradient has no part along the lowest eigenvector; walk along it to the boundary.
        gap = (radius**2 - (bound * bound).sum(-1)).clamp(min=0).sqrt()
        hard = (lowest < -tiny) & (gap > 1e-3 * radius)
        extra = torch.zeros_like(bound)
        extra[..., 0] = torch.where(hard, gap, torch.zeros_like(gap)) * torch.where(
            self.gradient[..., 0] > 0, -1.0, 1.0
        )
        step = torch.where(interior.unsqueeze(-1), free, bound + extra)
        return (self.vectors @ step.unsqueeze(-1)).squeeze(-1)

    def _step(self, shift: Tensor) -> Tensor:
        denominator = self.values + shift.unsqueeze(-1)
        safe = torch.where(denominator == 0, torch.full_like(denominator, torch.finfo(shift.dtype).tiny), denominator)
        return -self.gradient / safe


class _ProductModel:
    """The same for one large problem: a Newton step where it fits, else Steihaug's truncated conjugate gradients."""

    def __init__(self, evaluations: Evaluations, point: Point, tangent: LinearOperator) -> None:
        self.tangent, self.gradient = tangent, point.residual
        self.factor, self.newton = None, None
        factor = evaluations.factor(point.u)
        if not bool(factor.singular) and bool(factor.detect_negative_curvature()):
            evaluations.counts.back_substitutions += 1
            self.factor, self.newton = factor, -factor.solve(self.gradient)
        self.definite = self.newton is not None

    def minimise(self, radius: Tensor) -> Tensor:
        if self.newton is not None and bool(torch.linalg.vector_norm(self.newton) <= radius):
            return self.newton
        return self._steihaug(radius)

    def _steihaug(self, radius: Tensor) -> Tensor:
        # The path of conjugate gradients grows in length and falls in energy all the way (Steihaug 1983, theorem 2.1), so
        # it may be cut at the boundary, or where curvature turns negative, and is still at least the Cauchy step.
        move, residual = torch.zeros_like(self.gradient), self.gradient
        direction, target = -residual, 1e-2 * torch.linalg.vector_norm(residual)
        for _ in range(2 * self.tangent.n):
            image = self.tangent.matmul(direction)
            curvature = direction @ image
            if bool(curvature <= 0):
                return move + _to_boundary(move, direction, radius) * direction
            length = (residual @ residual) / curvature
            longer = move + length * direction
            if bool(torch.linalg.vector_norm(longer) >= radius):
                return move + _to_boundary(move, direction, radius) * direction
            fresh = residual + length * image
            if bool(torch.linalg.vector_norm(fresh) <= target):
                return longer
            move, direction, residual = longer, -fresh + (fresh @ fresh) / (residual @ residual) * direction, fresh
        return move


def _to_boundary(move: Tensor, direction: Tensor, radius: Tensor) -> Tensor:
    """The positive t with ||move + t direction|| = radius."""
    a, b, c = direction @ direction, move @ direction, move @ move - radius**2
    return (-b + torch.sqrt(b * b - a * c)) / a
