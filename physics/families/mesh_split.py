"""The p-Laplacian on linear triangles or tetrahedra as a split problem.

Gradients are in units of the head drop across a cell of mean size, and a cell's volume is part of its conductance, so
that both are like those of edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bilevel.acceleration.cellwise import vectors
from physics.families import linear_cells
from physics.families.flow_split import FlowSplit
from physics.families.power_law_cells import PowerLawCells
from physics.flow.p_laplacian import PLaplacian


class MeshSplit(FlowSplit):
    """A p-Laplacian at its parameters.

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
        self.inflow = -problem.nodal_forces(rest, params, loads)[:, 0].detach()

    def gradients(self, u: Tensor) -> Tensor:
        return linear_cells.gradients(self.heads(u), self.cells, self._columns)

    def first_slope(self) -> Tensor:
        return vectors.isotropic(self.law.secant(self._typical), self.still)

    def element_matrices(self, slope: Tensor) -> Tensor:
        return linear_cells.element_matrices(slope, self._columns)

    def balance(self, fluxes: Tensor) -> Tensor:
        return linear_cells.divergence(fluxes, self.cells, self._columns, self.nodes)
