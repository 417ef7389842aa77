"""Flow on edges or linear cells as a split problem, derived from its law: what first guesses are made of.

Gradients are in units of the drop across a cell of mean size, and a cell's volume is part of its conductance, so that
cells of meshes are like edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from bilevel.report import Counts, InputError
from bilevel.solvers.cellwise import vectors
from bilevel.solvers.cellwise.cell_law import CellLaw
from bilevel.solvers.cellwise.problem import Guess
from bilevel.solvers.cellwise.split import BALANCED, SplitProblem
from physics.constitutive.flow.law import Asymptotes, FlowLaw
from physics.constitutive.flow.linear import Linear
from physics.local import linear_cells
from physics.local.energy import LocalEnergy


@dataclass(eq=False)
class FlowLawOfCells(CellLaw):
    """A flow law at parameters (E,): gradients in units of 1 / size, energies times the cells' volumes (E,).

    typical: a gradient, in the law's own units, about which the law's asymptotes are looked for.
    """

    law: FlowLaw
    params: Mapping[str, Tensor]
    size: Tensor
    volume: Tensor
    typical: float

    def secant(self, sizes: Tensor) -> Tensor:
        return self._scale * self.law.secant(sizes / self.size, self.params)

    def secant_and_slope(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        secant, slope = self.law.secant_and_slope(sizes / self.size, self.params)
        return self._scale * secant, self._scale * slope

    def log_gradients(self, fluxes: Tensor) -> Tensor:
        own = self.law.log_size(fluxes * (self.size / self.volume), self._asymptotes, self.params)
        return own + self.size.log()

    @property
    def exponent(self) -> Tensor:  # type: ignore[override]
        return self._asymptotes.exponent

    @cached_property
    def log_threshold(self) -> Tensor:  # type: ignore[override]
        return (self._asymptotes.threshold * self.size).log()

    @cached_property
    def log_conductance(self) -> Tensor:  # type: ignore[override]
        return (self._asymptotes.conductance * self._scale).log()

    @cached_property
    def _scale(self) -> Tensor:
        return self.volume / self.size**2

    @cached_property
    def _asymptotes(self) -> Asymptotes:
        return self.law.asymptotes(torch.full_like(self.volume, self.typical), self.params)


class FlowCells(SplitProblem):
    """Flow at its parameters; all its systems share the pattern and the symbolic analysis of the problem's Hessian.

    problem: a `FlowNetwork`, or a `Diffusion` on linear triangles or tetrahedra, without leakage or storage. typical: the
    drop or gradient of a typical cell, where the linear start has the flux of the law; found by itself if it is None. Raises
    InputError for problems of another kind, and for laws whose flux is not odd in the drop.
    """

    law: FlowLawOfCells

    def __init__(self, problem: LocalEnergy, params: Mapping[str, Any], typical: float | None = None) -> None:
        flow, *loads = problem.terms
        if not isinstance(flow.density, FlowLaw) or flow.measure.matrix is not None:
            raise InputError("a flow by cells needs a FlowLaw of plain gradients as the first term of its energy")
        if not all(load.density.affine for load in loads):
            raise InputError("a flow by cells knows sources alone: leave leakage and storage out")
        self.problem = problem
        self.cells, self.nodes, self.n = flow.operator.cells, problem.constraints.shape[0], problem.n
        columns, volume = linear_cells.columns_and_volume(flow.operator)
        size = volume.mean() ** (1.0 / columns.shape[2])
        self._columns = columns * size
        self.boundary = params.get("boundary")
        rest = volume.new_zeros(self.nodes, 1)
        self.inflow = -problem.nodal_forces(rest, params, loads)[:, 0].detach()
        self.law = FlowLawOfCells(flow.density, _of_cells(problem, params, len(volume)), size, volume, typical or 1.0)
        flow.density.require_even(torch.full_like(volume, self.law.typical), self.law.params)
        self._known = typical is not None

    def heads(self, u: Tensor) -> Tensor:
        """The heads (nodes,) at u (n,)."""
        return self.problem.constraints.expand(u, self.boundary)[:, 0]

    def gradients(self, u: Tensor) -> Tensor:
        return linear_cells.gradients(self.heads(u), self.cells, self._columns)

    def first_slope(self) -> Tensor:
        typical = torch.full_like(self.law.volume, self.law.typical) * self.law.size
        return vectors.isotropic(self.law.secant(typical), self.at_zero)

    def begin(self, start: Tensor) -> Guess:
        spent = Counts()
        if not self._known:
            gradients = self.gradients(start)
            near = self._off_balance(self.law.flux(gradients)) <= BALANCED
            sizes = vectors.size(gradients) if near else self._driven(spent)
            self._take_for_typical(sizes)
        guess = super().begin(start)
        guess.counts.add(spent)
        return guess

    def _driven(self, spent: Counts) -> Tensor:
        """Sizes of gradients (E,) that the held heads alone drive, or at which the law carries the inflows alone, if larger.

        Both by one linear problem with the law's slopes at rest: what the heads drive, and which way the inflows go, does
        not depend on the scale of those.
        """
        slope = vectors.isotropic(self.law.secant(torch.zeros_like(self.law.volume)), self.at_zero)
        factor = factorise(self.matrix(slope), self.linear_solver)
        spent.factorisations, spent.back_substitutions = 1, 2
        held, carried = (
            self.gradients(factor.solve(load))
            for load in (-self.divergence(vectors.times(slope, self.at_zero)), -self.imbalance(0.0 * self.at_zero))
        )
        carried = vectors.times(slope, carried - self.at_zero)
        if not bool(carried.any()):
            return vectors.size(held)
        self._take_for_typical(vectors.size(held) if bool(held.any()) else self._lifted(carried) / self.law.volume)
        by_inflow = self.law.log_gradients(self._lifted(carried)).exp()
        by_heads = vectors.size(held)
        return by_inflow if bool(by_inflow.median() > by_heads.median()) else by_heads

    def _take_for_typical(self, sizes: Tensor) -> None:
        known = sizes[sizes > 0.0]
        typical = float(known.median() / self.law.size) if len(known) else 1.0
        self.law, self._known = replace(self.law, typical=typical), True

    def matrix(self, slope: Tensor) -> Sparse:
        scatter = self.problem.scatter
        sums = scatter.zeros(slope)
        scatter.add(sums, linear_cells.element_matrices(slope, self._columns)[None])
        return Sparse(scatter.pattern, scatter.finish(sums), self.problem.structure)

    def divergence(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self._balance(fluxes))

    def imbalance(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self._balance(fluxes) - self.inflow)

    def _balance(self, fluxes: Tensor) -> Tensor:
        return linear_cells.divergence(fluxes, self.cells, self._columns, self.nodes)


def flow_cells(problem: LocalEnergy, params: Params) -> FlowCells | None:
    """A flow by cells, or None where it is linear, or has no such form."""
    if isinstance(problem.terms[0].density, Linear):
        return None
    try:
        return FlowCells(problem, params or {})
    except InputError:  # leakage, storage, curved cells, laws with a direction: Newton's method takes them all
        return None


def _of_cells(problem: LocalEnergy, params: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """The parameters of the law as numbers (E,), whether they are shared, per cell, or the same at all points of a cell."""
    fields = problem.fields(problem.terms[0], params)
    return {
        name: value.detach().expand(count, -1)[:, 0] if value.dim() else value.detach().expand(count)
        for name, value in fields.items()
    }
