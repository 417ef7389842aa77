"""What a solver may ask of a problem at fixed parameters: points, slopes, tangents; every question is counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import Counts

ROUNDING_FACTOR = 1e3
"""A residual below this many rounding errors of its own terms cannot be reduced further in the given precision."""


@dataclass(frozen=True)
class Tolerance:
    """Convergence on the residual: ||r|| <= absolute + relative * scale.

    The scale is the larger of ||r(u0)|| and ||H(u0) u0||, so that a warm start is not asked for more than a cold one.
    """

    relative: float = 1e-10
    absolute: float = 0.0

    def __post_init__(self) -> None:
        if self.relative < 0 or self.absolute < 0 or self.relative + self.absolute == 0:
            raise ValueError(
                f"tolerances must be >= 0 and not both 0, got relative={self.relative}, absolute={self.absolute}"
            )

    def threshold(self, scale: Tensor) -> Tensor:
        relative = max(self.relative, 50 * torch.finfo(scale.dtype).eps)
        return self.absolute + relative * scale


@dataclass
class Point:
    """A trial state u (*batch, n), its residual, and its merit (*batch): the energy, or half the squared residual."""

    u: Tensor
    merit: Tensor
    residual: Tensor

    @property
    def norm(self) -> Tensor:
        return torch.linalg.vector_norm(self.residual, dim=-1)

    @property
    def finite(self) -> Tensor:
        return torch.isfinite(self.merit) & torch.isfinite(self.norm)


class Evaluations:
    """A problem at fixed parameters, as the solvers see it; linear: what every linear system on the way is solved by."""

    def __init__(self, problem: Problem, params: Params, linear: LinearSolver | None = None) -> None:
        self.problem = problem
        self.params = params
        self.linear = linear or Automatic()
        self.counts = Counts()
        self.is_energy = isinstance(problem, EnergyProblem)
        self.goal: Tensor | None = None  # the residual norm (*batch) sought, where directions may be inexact
        self._latest: tuple[Tensor, LinearOperator] | None = None

    def point(self, u: Tensor) -> Point:
        self.counts.residuals += 1
        if isinstance(self.problem, EnergyProblem):
            self.counts.values += 1
            value, residual = self.problem.value_and_residual(u, self.params)
            return Point(u, value, residual)
        residual = self.problem.residual(u, self.params)
        return Point(u, 0.5 * (residual * residual).sum(-1), residual)

    def slope(self, point: Point, direction: Tensor) -> Tensor:
        """Derivative of the merit along `direction`."""
        if self.is_energy:
            return (point.residual * direction).sum(-1)
        tangent = self.known_tangent(point.u)
        image = self.product(point.u, direction) if tangent is None else tangent.matmul(direction)
        return (point.residual * image).sum(-1)

    def product(self, u: Tensor, x: Tensor) -> Tensor:
        self.counts.products += 1
        return self.problem.product(u, self.params, x)

    def tangent(self, u: Tensor) -> LinearOperator:
        known = self.known_tangent(u)
        if known is None:
            self.counts.tangents += 1
            known = self.problem.tangent(u, self.params)
            self._latest = (u, known)
        return known

    def known_tangent(self, u: Tensor) -> LinearOperator | None:
        """The tangent at u if it was the latest one made."""
        return self._latest[1] if self._latest is not None and self._latest[0] is u else None

    def scale(self, point: Point) -> Tensor:
        """The size of the terms that the residual balances: max(||r||, ||H u||)."""
        tangent = self.known_tangent(point.u)
        image = self.product(point.u, point.u) if tangent is None else tangent.matmul(point.u)
        carried = torch.linalg.vector_norm(image, dim=-1)
        return torch.maximum(point.norm, torch.nan_to_num(carried, nan=0.0, posinf=0.0))

    def at_rounding_level(self, point: Point, scale: Tensor) -> Tensor:
        eps = torch.finfo(point.u.dtype).eps
        return point.norm <= ROUNDING_FACTOR * eps * torch.maximum(scale, self.scale(point))
