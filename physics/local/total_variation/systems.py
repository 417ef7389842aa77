"""Linear systems of total variation: cells with fluxes linear in the gradient, nodes with a quadratic misfit.

E(u) = sum of a sqrt(|g|^2 + e^2) |cell| + 1/2 sum of m (u - d)^2 on linear triangles or tetrahedra. Gradients are in
units of e and fluxes in units of a, so that a cell's true flux is g / sqrt(|g|^2 + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import Sparse, Structure
from bilevel.linalg.solver import Factor, LinearSolver
from physics.discretisation.constraints import ConstraintSet
from physics.local.assembly import Scatter
from physics.local.energy import LocalEnergy
from physics.local.linear_cells import columns_and_volume, divergence, element_matrices, gradients


@dataclass(frozen=True, eq=False)
class VariationSystems:
    """One denoising problem, or several side by side.

    cells (E, A), columns (E, A, dim): what gradients are made of. volume, weight, smoothing (E,): |cell|, a and e.
    mass, data (n,): m and d. scatter, structure: those of the matrices. of_cell (E,), of_node (n,): the problem that
    each belongs to.
    """

    cells: Tensor
    columns: Tensor
    volume: Tensor
    weight: Tensor
    smoothing: Tensor
    mass: Tensor
    data: Tensor
    scatter: Scatter
    structure: Structure
    of_cell: Tensor
    of_node: Tensor

    @staticmethod
    def of(problem: LocalEnergy, params: dict[str, Any]) -> VariationSystems:
        """Those of an energy with a term of total variation and, after it, one of the misfit at nodes."""
        operator = problem.terms[0].operator
        columns, volume = columns_and_volume(operator)
        variation, data = params["variation"], params["data"]
        count, nodes = len(volume), len(data["value"])
        return VariationSystems(
            operator.cells,
            columns,
            volume,
            variation["weight"].detach().expand(count),
            variation["smoothing"].detach().expand(count),
            data["mass"].detach(),
            data["value"].detach(),
            problem.scatter,
            problem.structure,
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(nodes, dtype=torch.int64),
        )

    @staticmethod
    def side_by_side(parts: Sequence[VariationSystems]) -> VariationSystems:
        """The disjoint union, cells and nodes in a row."""
        nodes = torch.tensor([len(part.data) for part in parts])
        first = nodes.cumsum(0) - nodes
        cells = torch.cat([part.cells + start for part, start in zip(parts, first)])
        total, number = int(nodes.sum()), torch.arange(len(parts))
        scatter = Scatter([cells, torch.arange(total)[:, None]], ConstraintSet((), total, 1))
        return VariationSystems(
            cells,
            torch.cat([part.columns for part in parts]),
            torch.cat([part.volume for part in parts]),
            torch.cat([part.weight for part in parts]),
            torch.cat([part.smoothing for part in parts]),
            torch.cat([part.mass for part in parts]),
            torch.cat([part.data for part in parts]),
            scatter,
            parts[0].structure,
            number.repeat_interleave(torch.tensor([len(part.cells) for part in parts])),
            number.repeat_interleave(nodes),
        )

    @property
    def dim(self) -> int:
        return self.columns.shape[2]

    @property
    def problems(self) -> int:
        return int(self.of_node[-1]) + 1

    @cached_property
    def cost(self) -> Tensor:
        """a e |cell| (E,): the energy of a gradient of size e, in units of which cells reckon."""
        return self.weight * self.volume * self.smoothing

    @cached_property
    def node_volume(self) -> Tensor:
        return self.to_nodes(self.volume / self.cells.shape[1])

    @cached_property
    def contrast(self) -> Tensor:
        """The greys (E,) that the total variation can tell from noise within one cell: a / (size density)."""
        density = (self.mass / self.node_volume)[self.cells].mean(1)
        return self.weight / (self.size * density)

    @cached_property
    def size(self) -> Tensor:
        """The lengths (E,) of the cells."""
        return self.volume ** (1.0 / self.dim)

    def gradients(self, u: Tensor) -> Tensor:
        """g (E, dim) at u (n,)."""
        return gradients(u, self.cells, self.columns) / self.smoothing[:, None]

    def divergence(self, fluxes: Tensor) -> Tensor:
        """The transpose of `gradients`, (n,), for fluxes (E, dim) in units of energy."""
        return divergence(fluxes / self.smoothing[:, None], self.cells, self.columns, len(self.data))

    def to_nodes(self, values: Tensor) -> Tensor:
        """The sums (n,) at the nodes of values (E,) at each node of a cell."""
        width = self.cells.shape[1]
        return torch.zeros_like(self.data).index_add(0, self.cells.reshape(-1), values.repeat_interleave(width))

    def cell_totals(self, values: Tensor) -> Tensor:
        """The sums (problems,) of values of cells (E,)."""
        if self.problems == 1:
            return values.sum()[None]
        return values.new_zeros(self.problems).index_add(0, self.of_cell, values)

    def node_totals(self, values: Tensor) -> Tensor:
        """The sums (problems,) of values of nodes (n,)."""
        return values.new_zeros(self.problems).index_add(0, self.of_node, values)

    def solution(self, slope: Tensor, offset: Tensor, linear: LinearSolver | None = None) -> tuple[Tensor, Tensor]:
        """u (n,) and g (E, dim) for the fluxes slope g + offset; differentiable in slope, symmetric, and offset."""
        return _Solution.apply(self, slope, offset, linear)

    def factor(self, slope: Tensor, linear: LinearSolver | None = None) -> Factor:
        """The factorised matrix for slopes (E, dim, dim)."""
        scale = self.weight * self.volume / self.smoothing
        sums = self.scatter.zeros(slope)
        local = element_matrices(slope * scale[:, None, None], self.columns)
        self.scatter.add(sums, local[None])
        self.scatter.add(sums, self.mass[None, :, None, None], group=1)
        return factorise(Sparse(self.scatter.pattern, self.scatter.finish(sums), self.structure), linear)


class _Solution(torch.autograd.Function):
    """(slope, offset) -> (u, gradients), differentiated by one back-substitution with the same factor."""

    @staticmethod
    def forward(
        ctx: Any, systems: VariationSystems, slope: Tensor, offset: Tensor, linear: LinearSolver | None
    ) -> tuple[Tensor, Tensor]:
        factor = systems.factor(slope, linear)
        u = factor.solve(systems.mass * systems.data - systems.divergence(systems.cost[:, None] * offset))
        gradients = systems.gradients(u)
        ctx.systems, ctx.factor = systems, factor
        ctx.save_for_backward(gradients)
        return u, gradients

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor, Tensor, None]:
        (gradients,) = ctx.saved_tensors
        of_u, of_gradients = cotangents
        systems: VariationSystems = ctx.systems
        adjoint = systems.gradients(ctx.factor.solve(of_u + systems.divergence(of_gradients)))
        of_offset = -systems.cost[:, None] * adjoint
        return None, of_offset[:, :, None] * gradients[:, None, :], of_offset, None
