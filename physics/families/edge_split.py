"""Networks as split problems: the cells are edges, the gradients head drops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.acceleration.cellwise.cell_law import CellLaw
from bilevel.report import InputError
from physics.constitutive.flow.edge_laws import EdgeLaw, Forchheimer, PowerLaw
from physics.families.flow_split import FlowSplit
from physics.families.forchheimer_cells import ForchheimerCells
from physics.families.power_law_cells import PowerLawCells
from physics.flow.network import FlowNetwork


class EdgeSplit(FlowSplit):
    """A network at its parameters.

    typical: the drop [m] of a typical edge, where the linear start has the flux of the law. Raises InputError for a law
    without cells.
    """

    def __init__(self, problem: FlowNetwork, params: dict[str, Any], typical: float) -> None:
        self.problem, self.typical = problem, typical
        self.cells, self.nodes, self.n = problem.graph.edges, problem.graph.nodes, problem.n
        self.law = law_of_cells(problem.law, params["flow"], len(self.cells))
        self.boundary, self.inflow = params.get("boundary"), params["inflow"].detach()
        self._signs = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)

    def gradients(self, u: Tensor) -> Tensor:
        heads = self.heads(u)
        return heads[self.cells[:, 1]] - heads[self.cells[:, 0]]

    def first_slope(self) -> Tensor:
        return self.law.secant(torch.full((len(self.cells),), self.typical, dtype=torch.float64))

    def element_matrices(self, slope: Tensor) -> Tensor:
        return (slope[:, None] * self._signs).reshape(-1, 2, 2)

    def balance(self, fluxes: Tensor) -> Tensor:
        total = fluxes.new_zeros(self.nodes)
        return total.index_add(0, self.cells[:, 1], fluxes).index_add(0, self.cells[:, 0], -fluxes)


def law_of_cells(law: EdgeLaw, params: Mapping[str, Tensor], count: int) -> CellLaw:
    """The law of `count` edges at parameters shared () or per edge (count,); InputError where none is known."""
    own = {name: value.detach().expand(count) for name, value in params.items()}
    if isinstance(law, PowerLaw):
        like = own["conductance"]
        return PowerLawCells(torch.full_like(like, law.exponent), torch.full_like(like, law.threshold), like)
    if isinstance(law, Forchheimer):
        return ForchheimerCells(own["linear"], own["quadratic"])
    raise InputError(f"edges of the law {type(law).__name__} have no law of cells; known are PowerLaw and Forchheimer")
