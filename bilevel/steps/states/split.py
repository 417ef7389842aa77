"""Energies that split into cells, E(u) = sum over cells of psi(g) - f.u with g = B u + g0, by linear systems.

Newton's method linearises the flux q = psi'(g) of every cell about its present gradient. A linear system is just as
cheap about any other gradients, also such that belong to no u: with q = slope g + offset in every cell,

    B^T (slope (B u + g0) + offset) = f

gives gradients that belong to a u and fluxes that balance. Linearised about gradients that err by e, its solution errs by
O(e^2). Each solution offers two estimates of a cell's gradient: its own, and the one that belongs to its flux. Without a
network the next system is made about the middle of the two on a logarithmic scale (in the spirit of primal-dual methods:
Chan, Golub, Mulet 1999, SIAM J. Sci. Comput. 20, 1964); a network says where between or beyond them the solution lies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.solver import Factor
from bilevel.steps.states.problem import Incidence, State
from bilevel.steps.states.unrolled import UnrolledProblem

FEATURE_VERSION = 1
"""Raised whenever the features below change their meaning; weights carry it."""

WIDEST = 12.0
"""Logarithms of ratios are cut here: a factor of 1.6e5 is as good as zero or infinity."""

FAINT = 1e-10
"""Gradients, fluxes and slopes below this fraction of their mean are lifted to it: such cells carry nothing."""

LEAST_SLOPE = 0.1
"""Slopes are kept above this fraction of the steeper of those at the gradient and at the flux."""

SAME_START = 1e-6
"""A start is taken for the solution of the linear problem where its fluxes balance to this fraction of the loads."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Gradients (E,) of a linear system's solution and its fluxes (E,), which balance the loads.

    primal, dual (E,): the logarithms of |gradient| and of the gradient that belongs to |flux|. aligned (E,): whether
    gradient and flux have one sign.
    """

    gradients: Tensor
    fluxes: Tensor
    primal: Tensor
    dual: Tensor
    aligned: Tensor


class CellLaw(ABC):
    """psi of every cell, by its derivatives; gradients, fluxes and slopes are (E,) with a sign of their own.

    exponent (E,): the degree p of psi. threshold (E,): a gradient below which psi is quadratic. conductance (E,): what
    multiplies psi. All three are known to the network.
    """

    exponent: Tensor
    threshold: Tensor
    conductance: Tensor

    @abstractmethod
    def flux(self, gradients: Tensor) -> Tensor:
        """psi' (E,), odd and increasing in the gradient; differentiable."""

    @abstractmethod
    def slope(self, gradients: Tensor) -> Tensor:
        """psi'' (E,); differentiable."""

    @abstractmethod
    def flux_and_slope(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once."""

    @abstractmethod
    def log_gradients(self, fluxes: Tensor) -> Tensor:
        """The logarithms of the gradients (E,) at which psi' equals the positive `fluxes` (E,); differentiable.

        Where psi is no pure power a few digits are enough.
        """

    @cached_property
    def log_threshold(self) -> Tensor:
        return self.threshold.log()

    @cached_property
    def log_conductance(self) -> Tensor:
        return self.conductance.log()

    @classmethod
    @abstractmethod
    def joined(cls, laws: Sequence[Any]) -> CellLaw:
        """The law of all cells of several laws of this class in a row."""


class SplitProblem(UnrolledProblem):
    """A problem at fixed parameters, seen cell by cell.

    cells (E, A): the nodes of each cell. nodes: how many there are. n: how many unknowns. law: psi. settled_at: the
    imbalance of the fluxes, relative to their size, below which Newton's method needs no more help.
    """

    outputs = ("blend", "shift", "lift")
    feature_count = 8
    cells: Tensor
    nodes: int
    n: int
    law: CellLaw
    settled_at: float = 1e-5

    @abstractmethod
    def gradients(self, u: Tensor) -> Tensor:
        """g (E,) at u (n,)."""

    @abstractmethod
    def first_slope(self) -> Tensor:
        """Slopes (E,) of the linear problem whose solution is the family's start."""

    @abstractmethod
    def matrix(self, slope: Tensor) -> LinearOperator:
        """B^T slope B."""

    @abstractmethod
    def divergence(self, fluxes: Tensor) -> Tensor:
        """B^T q (n,)."""

    @abstractmethod
    def imbalance(self, fluxes: Tensor) -> Tensor:
        """B^T q - f (n,): the residual of the fluxes."""

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values (E,) over the cells of the problem, for each cell (E,)."""
        return values.mean().expand_as(values)

    def total(self, values: Tensor) -> Tensor:
        """The sum of values (E,) over the cells of each part (parts,)."""
        return values.sum()[None]

    @staticmethod
    def side_by_side(parts: Sequence[UnrolledProblem]) -> SplitProblem:
        from bilevel.steps.states.joined import Joined

        return Joined([part for part in parts if isinstance(part, SplitProblem)])

    def excess(self, state: State, solution: Tensor) -> Tensor:
        now, then = state.memory.gradients, self.gradients(solution)
        return self.total((self.law.flux(now) - self.law.flux(then)) * (now - then))

    @cached_property
    def incidence(self) -> Incidence:  # type: ignore[override]
        count, width = self.cells.shape
        items = torch.arange(count).repeat_interleave(width)
        pairs = torch.stack((items, self.cells.reshape(-1)))
        return Incidence(count, self.nodes, pairs, torch.empty(len(items), 0))

    @cached_property
    def still(self) -> Tensor:
        """g0 (E,)."""
        return self.gradients(torch.zeros(self.n, dtype=torch.float64))

    def linear_start(self) -> Tensor:
        """The solution u (n,) of the linear problem."""
        slope = self.first_slope()
        return self.linear_solution(slope, torch.zeros_like(slope))

    def linear_solution(self, slope: Tensor, offset: Tensor) -> Tensor:
        """The solution u (n,) of B^T (slope (B u + g0) + offset) = f; differentiable in slope and offset (E,)."""
        return _Linear.apply(self, slope, offset)[0]

    def begin(self, start: Tensor) -> State:
        """The start with the fluxes of the linear problem if it solves that, else with its own fluxes."""
        gradients = self.gradients(start)
        linear = self.first_slope() * gradients
        balanced = self._off_balance(linear) <= SAME_START
        return State(start, self._flow(gradients, linear if balanced else self.law.flux(gradients)))

    def detached(self, state: State) -> State:
        """The same state without history of gradients."""
        flow: Flow = state.memory
        return State(state.u.detach(), self._flow(flow.gradients.detach(), flow.fluxes.detach()), state.counts)

    def settled(self, state: State) -> bool:
        return self._off_balance(self.law.flux(state.memory.gradients)) <= self.settled_at

    def features(self, state: State) -> Tensor:
        """Differences of logarithms and the exponent alone, float32, so that units do not matter."""
        flow: Flow = state.memory
        primal, dual = flow.primal, flow.dual
        ratio, still = dual - primal, self._still_features
        columns = (
            _squashed(ratio),
            _squashed(primal - self.mean(primal)),
            _squashed(dual - self.mean(dual)),
            _squashed(primal - self.law.log_threshold),
            still[0],
            flow.aligned,
            still[1],
            self.mean(_cut(ratio).abs()) / 4.0,
        )
        return torch.stack([column.to(torch.float32) for column in columns], 1)

    @cached_property
    def _still_features(self) -> tuple[Tensor, Tensor]:
        """What does not change from system to system: the conductance against the mean, and the exponent."""
        conductance, p = self.law.log_conductance, self.law.exponent
        return _squashed(conductance - self.mean(conductance)), (p - 2.0) / p

    def solve(self, state: State, outputs: Tensor) -> State:
        """The next state; differentiable in `outputs` (E, 3) and in the state's gradients and fluxes."""
        slope, offset = self._about(state.memory, outputs)
        u, gradients = _Linear.apply(self, slope, offset)
        counts = replace(state.counts, factorisations=state.counts.factorisations + 1)
        return State(u, self._flow(gradients, slope * gradients + offset), counts)

    def targets(self, state: State, solution: Tensor) -> Tensor:
        """The outputs that ask for the solution's own gradients, as far as their ranges allow."""
        flow: Flow = state.memory
        primal, dual, aligned = flow.primal, flow.dual, flow.aligned
        wanted = self._lifted(self.gradients(solution)).log()
        gap = _cut(dual - primal)
        blend = torch.where(aligned & (gap.abs() > 1e-3), (wanted - primal) / gap - 0.5, 0.0).clamp(-0.9, 0.9)
        base = torch.where(self.law.exponent < 2.0, dual, primal)
        shift = torch.where(aligned, 0.0, (wanted - base) / torch.tanh(gap.abs()).clamp(min=1e-3) / 4.0).clamp(
            -0.9, 0.9
        )
        return torch.stack((blend.atanh(), shift.atanh(), torch.zeros_like(blend)), 1)

    def _about(self, flow: Flow, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and offset (E,) of the next system; where primal and dual agree, the network has no say.

        Gradient and flux of one sign: about the middle of the two on a logarithmic scale. Of opposite signs: about the
        one that determines the other well, the flux for p < 2 and the gradient for p > 2.
        """
        law, primal, dual = self.law, flow.primal, flow.dual
        blend, shift, lift = torch.tanh(outputs).unbind(1)
        gap, below_two = _cut(dual - primal), law.exponent < 2.0
        weight = torch.tanh(gap.abs())
        by_flux = ~flow.aligned & below_two
        between = primal + (0.5 + blend) * gap
        base = torch.where(flow.aligned, between, torch.where(by_flux, dual, primal))
        sign = torch.where(by_flux, flow.fluxes, flow.gradients).sign()
        point = sign * (base + 2.0 * shift * weight).exp()
        flux, tangent = law.flux_and_slope(point)
        steeper = torch.where(below_two, torch.minimum(primal, dual), torch.maximum(primal, dual)).exp()
        slope = torch.maximum(tangent, LEAST_SLOPE * law.slope(steeper)) * (lift * weight).exp()
        slope = torch.maximum(slope, FAINT * self.mean(slope.detach()))
        return slope, flux - slope * point

    def _flow(self, gradients: Tensor, fluxes: Tensor) -> Flow:
        dual = self.law.log_gradients(self._lifted(fluxes))
        return Flow(gradients, fluxes, self._lifted(gradients).log(), dual, gradients * fluxes > 0)

    def _off_balance(self, fluxes: Tensor) -> float:
        """The imbalance of fluxes relative to their size."""
        return float(torch.linalg.vector_norm(self.imbalance(fluxes)) / torch.linalg.vector_norm(fluxes))

    def _lifted(self, values: Tensor) -> Tensor:
        size = values.abs()
        return torch.maximum(size, FAINT * self.mean(size.detach()))


class _Linear(torch.autograd.Function):
    """(slope, offset) -> (u, gradients) of a split problem, differentiated by one back-substitution."""

    @staticmethod
    def forward(ctx: Any, split: SplitProblem, slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        factor: Factor = factorise(split.matrix(slope))
        u = -factor.solve(split.imbalance(slope * split.still + offset))
        gradients = split.gradients(u)
        ctx.split, ctx.factor = split, factor
        ctx.save_for_backward(gradients)
        return u, gradients

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor, Tensor]:
        (gradients,) = ctx.saved_tensors
        of_u, of_gradients = cotangents
        adjoint = ctx.factor.solve(of_u + ctx.split.divergence(of_gradients))
        state = ctx.split.gradients(adjoint) - ctx.split.still
        return None, -state * gradients, -state


def _squashed(logarithm: Tensor) -> Tensor:
    return _cut(logarithm) / 4.0


def _cut(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-WIDEST, WIDEST)
