"""Linear systems of total variation: cells with fluxes linear in the gradient, nodes with a quadratic misfit.

E(u) = sum of a sqrt(|g|^2 + e^2) |cell| + 1/2 sum of m (u - d)^2 on linear triangles or tetrahedra. Gradients are in
units of e and fluxes in units of a, so that a cell's true flux is g / sqrt(|g|^2 + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import Sparse, Structure
from bilevel.linalg.solver import Factor, LinearSolver
from physics.local.assembly import Scatter
from physics.local.energy import LocalEnergy
from physics.local.linear_cells import columns_and_volume, divergence, element_matrices, gradients


@dataclass(frozen=True, eq=False)
class VariationSystems:
    """One denoising problem.

    cells (E, A), columns (E, A, dim): what gradients are made of. volume, weight, smoothing (E,): |cell|, a and e.
    mass, data (n,): m and d. scatter, structure: those of the matrices.
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

    @staticmethod
    def of(problem: LocalEnergy, params: dict[str, Any]) -> VariationSystems:
        """Those of an energy with a term of total variation and, after it, one of the misfit at nodes."""
        operator = problem.terms[0].operator
        columns, volume = columns_and_volume(operator)
        variation, data = params["variation"], params["data"]
        count = len(volume)
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
        )

    @property
    def dim(self) -> int:
        return self.columns.shape[2]

    @cached_property
    def cost(self) -> Tensor:
        """a e |cell| (E,): the energy of a gradient of size e, in units of which cells reckon."""
        return self.weight * self.volume * self.smoothing

    def gradients(self, u: Tensor) -> Tensor:
        """g (E, dim) at u (n,)."""
        return gradients(u, self.cells, self.columns) / self.smoothing[:, None]

    def divergence(self, fluxes: Tensor) -> Tensor:
        """The transpose of `gradients`, (n,), for fluxes (E, dim) in units of energy."""
        return divergence(fluxes / self.smoothing[:, None], self.cells, self.columns, len(self.data))

    def solution(self, slope: Tensor, offset: Tensor, linear: LinearSolver | None = None) -> tuple[Tensor, Tensor]:
        """u (n,) and g (E, dim) for the fluxes slope g + offset, slopes symmetric."""
        load = self.mass * self.data - self.divergence(self.cost[:, None] * offset)
        u = self.factor(slope, linear).solve(load)
        return u, self.gradients(u)

    def factor(self, slope: Tensor, linear: LinearSolver | None = None) -> Factor:
        """The factorised matrix for slopes (E, dim, dim)."""
        scale = self.weight * self.volume / self.smoothing
        sums = self.scatter.zeros(slope)
        local = element_matrices(slope * scale[:, None, None], self.columns)
        self.scatter.add(sums, local[None])
        self.scatter.add(sums, self.mass[None, :, None, None], group=1)
        return factorise(Sparse(self.scatter.pattern, self.scatter.finish(sums), self.structure), linear)
