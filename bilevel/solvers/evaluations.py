"""What a solver may ask of a problem at fixed parameters: points, slopes, tangents; every question is counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bilevel.linalg.direct.condition import random_signs
from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.linalg.sparse_batch import SparseBatch
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import Counts

NEIGHBOURS = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
"""Relative distances to the points at which noise is measured."""
SAFETY = 40.0
"""A neighbour so near shares most roundings; what it shows of the noise has been seen to be too small by up to this."""
SAME_ENERGY = 1e-12
"""Energies that differ by less, relative to their size, are the same to round-off."""
MERIT_SAFETY = 100.0
"""A norm of many entries is hardly ever small by chance, one number may be."""


@dataclass(frozen=True)
class Tolerance:
    """Convergence on the residual: ||r|| <= absolute + relative * scale.

    The scale is the size of the terms that cancel in the residual, at the point where it is met: what the problem says
    of them (`Problem.magnitude`), or ||H(u) u||. So neither the start nor, for problems that know their terms, a datum
    decides what is accurate. Where all terms vanish at the solution, they must fall to `relative` of their size at the
    start.
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

    @cached_property
    def norm(self) -> Tensor:
        return torch.linalg.vector_norm(self.residual, dim=-1)

    @cached_property
    def finite(self) -> Tensor:
        return (self.merit + self.norm).abs() < torch.inf  # as isfinite, which takes five calls; NaN is not less either


@dataclass(frozen=True)
class Rounding:
    """What rounding leaves unknown of a merit and of a residual's norm, each (*batch)."""

    merit: Tensor
    residual: Tensor


class Evaluations:
    """A problem at fixed parameters, as the solvers see it; linear: what every linear system on the way is solved by."""

    def __init__(self, problem: Problem, params: Params, linear: LinearSolver | None = None) -> None:
        self.problem = problem.prepared(params)
        self.params = params
        self.linear = linear or Automatic()
        self.counts = Counts()
        self.is_energy = isinstance(problem, EnergyProblem)
        self.active: Tensor | None = None  # the samples (*batch) that still move, None for all
        self.goal: Tensor | None = None  # the residual norm (*batch) sought, where directions may be inexact
        self._latest: tuple[Tensor, LinearOperator] | None = None
        self._factored: tuple[Tensor, Factor] | None = None
        self._noise: tuple[Tensor, Rounding] | None = None

    def point(self, u: Tensor) -> Point:
        self.counts.residuals += 1
        try:
            return self._point(u)
        except (
            torch.linalg.LinAlgError
        ):  # LAPACK refuses NaN, where other functions hand it on for a step to be shortened
            nowhere = torch.full_like(u, torch.nan)
            return Point(u, nowhere.sum(-1), nowhere)

    def _point(self, u: Tensor) -> Point:
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

    def factor(self, u: Tensor, wanted: Tensor | None = None) -> Factor:
        """A factorisation of the tangent at u, singular or not; the latest one where it was made there.

        wanted (*batch): the samples that it is needed for, where a batch is factorised one by one; None for all.
        """
        known, tangent = self.known_factor(u), self.tangent(u)
        if isinstance(tangent, SparseBatch) and wanted is not None:
            tangent = replace(tangent, wanted=wanted)
        elif known is not None:
            return known
        earlier = None if self._factored is None else self._factored[1]
        if not self.linear.reuses(tangent, earlier):
            earlier = None
        self._factored = None  # a factor that is of no more use gives its memory back before the next is made
        # A singular sample of a batch, or a flat energy far from its minimum, must not end the others' solve.
        factor = self.linear.follow(tangent, earlier, on_fail="ignore")
        self.counts.factorisations += factor.counts.factorisations
        self._factored = (u, factor)
        return factor

    def known_factor(self, u: Tensor) -> Factor | None:
        """The factorisation at u if it was the latest one made."""
        return self._factored[1] if self._factored is not None and self._factored[0] is u else None

    def image(self, u: Tensor, x: Tensor) -> Tensor:
        """Tangent times x, by the tangent at u where it was made."""
        tangent = self.known_tangent(u)
        return self.product(u, x) if tangent is None else tangent.matmul(x)

    def scale(self, point: Point) -> Tensor:
        """The size of the terms that the residual balances, at least that of the residual."""
        terms = self.problem.magnitude(point.u, self.params)
        terms = self.image(point.u, point.u) if terms is None else terms
        carried = torch.linalg.vector_norm(terms, dim=-1)
        return torch.maximum(point.norm, torch.nan_to_num(carried, nan=0.0, posinf=0.0))

    def noise(self, point: Point) -> Rounding:
        """What rounding leaves unknown of the merit and the residual at a point: measured at a neighbour.

        No bound from the values alone would do: what cancels inside an energy (I1 - 3 about the identity, say) is not
        seen from outside and may be a million times larger than what is left. What a neighbour differs by beyond the
        linear prediction is curvature, or noise; so the nearest one counts of which rounding leaves anything at all.
        (In the spirit of More & Wild 2011, SIAM J. Sci. Comput. 33, 1292.)
        """
        if self._noise is None or self._noise[0] is not point.u:
            merit, residual = torch.zeros_like(point.merit), torch.zeros_like(point.merit)
            missing = torch.ones_like(point.finite)
            signs = random_signs(point.u.shape[-1]).to(point.u)
            for step in NEIGHBOURS:
                at, off, noticed = self._missed(point, self.point(point.u * (1.0 + step * signs)))
                merit, residual = torch.where(missing, at, merit), torch.where(missing, off, residual)
                missing = missing & ~noticed
                if not bool(missing.any()):
                    break
            self._noise = (point.u, Rounding(MERIT_SAFETY * merit, SAFETY * residual))
        return self._noise[1]

    def _missed(self, point: Point, neighbour: Point) -> tuple[Tensor, Tensor, Tensor]:
        """By how much the linear prediction misses merit and residual at a neighbour; whether it was noticed there."""
        moved = neighbour.u - point.u  # as it was rounded
        image, change = self.image(point.u, moved), neighbour.residual - point.residual
        slope = (point.residual * (moved if self.is_energy else image)).sum(-1)
        norms = (torch.linalg.vector_norm(x, dim=-1) for x in (change - image, change, image))
        missed, changed, predicted = norms
        noticed = neighbour.finite & (changed > 0.5 * predicted)
        off = (neighbour.merit - point.merit - slope).abs()
        # A neighbour beyond the energy's domain says nothing of noise.
        return torch.where(neighbour.finite, off, 0.0), torch.where(neighbour.finite, missed, 0.0), noticed

    def at_rounding_level(self, point: Point) -> Tensor:
        """Whether the residual (*batch) is no larger than its noise."""
        return point.norm <= self.noise(point).residual
