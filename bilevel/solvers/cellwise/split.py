"""Energies that split into cells, E(u) = sum over cells of psi(|g|) - f.u with g = B u + g0, by linear systems.

Cells are edges with one number for a gradient, or pieces of the plane or of space with a vector. Newton's method
linearises the flux q = psi'(|g|) g/|g| of every cell about its present gradient. A linear system is just as cheap about
any other gradients, also such that belong to no u: with q = slope g + offset in every cell,

    B^T (slope (B u + g0) + offset) = f

gives gradients that belong to a u and fluxes that balance. Linearised about gradients that err by e, its solution errs by
O(e^2). Each solution offers two estimates of a cell's gradient: its own, and the one that belongs to its flux. Without a
network the next system is made about the middle of the two on a logarithmic scale (in the spirit of primal-dual methods:
Chan, Golub, Mulet 1999, SIAM J. Sci. Comput. 20, 1964); a network says where between or beyond them the solution lies.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import LinearOperator
from bilevel.report import Counts
from bilevel.solvers.cellwise import vectors
from bilevel.solvers.cellwise.cell_law import CellLaw
from bilevel.solvers.cellwise.problem import Guess, GuessedProblem, Incidence

FEATURE_VERSION = 1
"""Raised whenever the features below change their meaning; weights carry it."""

WIDEST = 12.0
"""Logarithms of ratios are cut here: a factor of 1.6e5 is as good as zero or infinity."""

FARTHEST = 6.0
"""A system moves the logarithm of a gradient by no more: of laws with p near 1 the dual estimate may be any power of ten."""

FAINT = 1e-10
"""Gradients, fluxes and slopes below this fraction of their mean are lifted to it: such cells carry nothing."""

LEAST_SLOPE = 0.1
"""Slopes are kept above this fraction of the steeper of those at the gradient and at the flux."""

BALANCED = 0.3
"""A start is kept where its own fluxes balance to this fraction of their size; the linear problem is no worse else."""

SAME_START = 1e-6
"""A start is taken for the solution of the linear problem where its fluxes balance to this fraction of the loads."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Gradients (E,) or (E, d) of a linear system's solution and its fluxes, which balance the loads.

    primal, dual (E,): the logarithms of |gradient| and of the gradient that belongs to |flux|. agreement (E,): how far
    the directions of gradient and flux agree, from 0 to 1.
    """

    gradients: Tensor
    fluxes: Tensor
    primal: Tensor
    dual: Tensor
    agreement: Tensor

    @property
    def aligned(self) -> Tensor:
        """Whether gradient and flux point the same way (E,)."""
        return self.agreement if self.agreement.dtype is torch.bool else self.agreement > 0.5


class SplitProblem(GuessedProblem):
    """A problem at fixed parameters, seen cell by cell.

    cells (E, A): the nodes of each cell. nodes: how many there are. n: how many unknowns. law: psi. near_at: the
    imbalance of the fluxes, relative to their size, below which Newton's method needs no more help. Gradients and
    fluxes are (E,), or (E, d) on meshes; slopes are (E,) or symmetric (E, d, d).
    """

    outputs = ("blend", "shift", "lift")
    cells: Tensor
    nodes: int
    n: int
    law: CellLaw
    near_at: float = 1e-5

    @abstractmethod
    def gradients(self, u: Tensor) -> Tensor:
        """g at u (n,)."""

    @abstractmethod
    def first_slope(self) -> Tensor:
        """Slopes of the linear problem whose solution is the family's start."""

    @abstractmethod
    def matrix(self, slope: Tensor) -> LinearOperator:
        """B^T slope B."""

    @abstractmethod
    def imbalance(self, fluxes: Tensor) -> Tensor:
        """B^T q - f (n,): the residual of the fluxes."""

    @cached_property
    def incidence(self) -> Incidence:  # type: ignore[override]
        count, width = self.cells.shape
        cells = torch.arange(count).repeat_interleave(width)
        pairs = torch.stack((cells, self.cells.reshape(-1)))
        return Incidence(count, self.nodes, pairs, torch.empty(len(cells), 0))

    @cached_property
    def at_zero(self) -> Tensor:
        """g0."""
        return self.gradients(self.cells.new_zeros(self.n, dtype=torch.float64))

    def linear_start(self) -> Tensor:
        """The solution u (n,) of the linear problem."""
        return self.linear_solution(self.first_slope(), torch.zeros_like(self.at_zero))

    def linear_solution(self, slope: Tensor, offset: Tensor) -> Tensor:
        """The solution u (n,) of B^T (slope (B u + g0) + offset) = f."""
        factor = factorise(self.matrix(slope), self.linear_solver)
        return -factor.solve(self.imbalance(vectors.times(slope, self.at_zero) + offset))

    def begin(self, start: Tensor) -> Guess:
        """The start with its own fluxes if they nearly balance, else the linear problem's solution with the fluxes of that."""
        gradients = self.gradients(start)
        own, linear = self.law.flux(gradients), vectors.times(self.first_slope(), gradients)
        if self._off_balance(linear) <= SAME_START:
            return Guess(start, self._flow(gradients, linear))
        if self._off_balance(own) <= BALANCED:
            return Guess(start, self._flow(gradients, own))
        u = self.linear_start()
        gradients = self.gradients(u)
        fluxes = vectors.times(self.first_slope(), gradients)
        return Guess(u, self._flow(gradients, fluxes), Counts(factorisations=1, back_substitutions=1))

    def near_solution(self, guess: Guess) -> bool:
        return self._off_balance(self.law.flux(guess.memory.gradients)) <= self.near_at

    def features(self, guess: Guess) -> Tensor:
        """Differences of logarithms and the exponent alone, float32, so that units do not matter."""
        flow: Flow = guess.memory
        primal, dual = flow.primal, flow.dual
        ratio, at_zero = dual - primal, self._constant_features
        columns = (
            _squashed(ratio),
            _squashed(primal - primal.mean()),
            _squashed(dual - dual.mean()),
            _squashed(primal - self.law.log_threshold),
            at_zero[0],
            flow.agreement,
            at_zero[1],
            (_cut(ratio).abs().mean() / 4.0).expand_as(ratio),
        )
        return torch.stack([column.to(torch.float32) for column in columns], 1)

    @cached_property
    def _constant_features(self) -> tuple[Tensor, Tensor]:
        """What does not change from system to system: the conductance against the mean, and the exponent."""
        conductance, p = self.law.log_conductance, self.law.exponent
        return _squashed(conductance - conductance.mean()), (p - 2.0) / p

    def solve(self, guess: Guess, outputs: Tensor | None = None) -> Guess:
        if outputs is None:
            outputs = guess.u.new_zeros(len(self.cells), len(self.outputs))
        slope, offset = self._about(guess.memory, outputs)
        u = self.linear_solution(slope, offset)
        gradients, before = self.gradients(u), guess.counts
        counts = replace(
            before, factorisations=before.factorisations + 1, back_substitutions=before.back_substitutions + 1
        )
        return Guess(u, self._flow(gradients, vectors.times(slope, gradients) + offset), counts)

    def targets(self, guess: Guess, solution: Tensor) -> Tensor:
        """The outputs that ask for the solution's own gradients, as far as their ranges allow."""
        flow: Flow = guess.memory
        primal, dual, aligned = flow.primal, flow.dual, flow.aligned
        wanted = self._lifted(self.gradients(solution)).log()
        gap = _within_reach(dual - primal)
        blend = torch.where(aligned & (gap.abs() > 1e-3), (wanted - primal) / gap - 0.5, 0.0).clamp(-0.9, 0.9)
        base = torch.where(self.law.exponent < 2.0, primal + gap, primal)
        shift = torch.where(aligned, 0.0, (wanted - base) / torch.tanh(gap.abs()).clamp(min=1e-3) / 4.0).clamp(
            -0.9, 0.9
        )
        return torch.stack((blend.atanh(), shift.atanh(), torch.zeros_like(blend)), 1)

    def _about(self, flow: Flow, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and offset of the next system; where primal and dual agree, the network has no say.

        Gradient and flux that point the same way: about the middle of the two on a logarithmic scale, in a direction
        nearer to the flux for p < 2 and nearer to the gradient for p > 2 (share 1/p, which takes the fewest systems).
        Else: about the one of them that determines the other well, again the flux for p < 2.
        """
        law, primal, dual, aligned = self.law, flow.primal, flow.dual, flow.aligned
        blend, shift, lift = torch.tanh(outputs).unbind(1)
        gap, below_two = _within_reach(dual - primal), law.exponent < 2.0
        weight = torch.tanh(gap.abs())
        by_flux = ~aligned & below_two
        between = primal + (0.5 + blend) * gap
        base = torch.where(aligned, between, torch.where(by_flux, primal + gap, primal))
        length = (base + 2.0 * shift * weight).exp()
        direction = vectors.direction(flow.gradients, flow.fluxes, 1.0 / law.exponent, aligned, by_flux)
        steeper = torch.where(below_two, torch.minimum(primal, dual), torch.maximum(primal, dual)).exp()
        lifted = (lift * weight).exp()

        def kept(slope: Tensor, steep: Tensor) -> Tensor:
            slope = torch.maximum(slope, LEAST_SLOPE * steep) * lifted
            return torch.maximum(slope, FAINT * slope.mean())

        secant, tangent = law.secant_and_slope(length)
        steep_secant, steep_tangent = law.secant_and_slope(steeper)
        along = kept(tangent, steep_tangent)
        across = along if direction.dim() == 1 else kept(secant, steep_secant)
        offset = vectors.scaled(length * (secant - along), direction)
        return vectors.slope_about(direction, along, across), offset

    def _flow(self, gradients: Tensor, fluxes: Tensor) -> Flow:
        dual = self.law.log_gradients(self._lifted(fluxes))
        return Flow(gradients, fluxes, self._lifted(gradients).log(), dual, vectors.agreement(gradients, fluxes))

    def _off_balance(self, fluxes: Tensor) -> float:
        """The imbalance of fluxes relative to their size."""
        return float(torch.linalg.vector_norm(self.imbalance(fluxes)) / torch.linalg.vector_norm(fluxes))

    def _lifted(self, values: Tensor) -> Tensor:
        """The sizes (E,) of vectors, never zero."""
        size = vectors.size(values)
        return torch.maximum(size, FAINT * size.mean())


def _squashed(logarithm: Tensor) -> Tensor:
    return _cut(logarithm) / 4.0


def _cut(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-WIDEST, WIDEST)


def _within_reach(gap: Tensor) -> Tensor:
    return FARTHEST * torch.tanh(gap / FARTHEST)
