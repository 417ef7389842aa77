"""The p-Laplacian on linear triangles or tetrahedra as a split problem.

Gradients are in units of the head drop across a cell of mean size, and a cell's volume is part of its conductance, so
that both are like those of edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse
from bilevel.steps.states import vectors
from bilevel.steps.states.split import SplitProblem
from physics.families import linear_cells
from physics.families.power_law_cells import PowerLawCells
from physics.flow.p_laplacian import PLaplacian


class MeshSplit(SplitProblem):
    """A p-Laplacian at its parameters; all its systems share the pattern and the symbolic analysis of its Hessian.

    typical: the gradient at which the linear start has the flux of the law.
    """

    def __init__(self, problem: PLaplacian, params: dict[str, Any], typical: float) -> None:
        self.problem, self.nodes, self.n = problem, problem.constraints.shape[0], problem.n
        flow, *loads = problem.terms
        self.cells = flow.operator.cells
        columns, volume = linear_cells.columns_and_volume(flow.operator)
        size = volume.mean() ** (1.0 / columns.shape[2])
        self._columns, self._typical = columns * size, (size * typical).expand_as(volume)
        p, conductivity = problem.law.exponent, params["flow"]["conductivity"].detach()
        threshold = (size * problem.law.threshold).expand_as(volume)
        self.law = PowerLawCells(torch.full_like(volume, p), threshold, conductivity * volume * size**-p)
        self.boundary = params.get("boundary")
        rest = torch.zeros(self.nodes, 1, dtype=torch.float64)
        self._inflow = -problem.nodal_forces(rest, params, loads)[:, 0].detach()

    def gradients(self, u: Tensor) -> Tensor:
        heads = self.problem.constraints.expand(u, self.boundary)[:, 0]
        return linear_cells.gradients(heads, self.cells, self._columns)

    def first_slope(self) -> Tensor:
        return vectors.isotropic(self.law.secant(self._typical), self.still)

    def matrix(self, slope: Tensor) -> Sparse:
        scatter = self.problem.scatter
        sums = scatter.zeros(slope)
        scatter.add(sums, linear_cells.element_matrices(slope, self._columns)[None])
        return Sparse(scatter.pattern, scatter.finish(sums), self.problem.structure)

    def divergence(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self._balance(fluxes))

    def imbalance(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self._balance(fluxes) - self._inflow)

    def _balance(self, fluxes: Tensor) -> Tensor:
        """What leaves each node (nodes,) against the direction of the gradients."""
        return linear_cells.divergence(fluxes, self.cells, self._columns, self.nodes)
