"""Networks as split problems: the cells are edges, the gradients head drops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse
from bilevel.report import InputError
from bilevel.steps.states.cell_law import CellLaw
from bilevel.steps.states.split import SplitProblem
from physics.families.forchheimer_cells import ForchheimerCells
from physics.families.power_law_cells import PowerLawCells
from physics.flow.edge_laws import EdgeLaw, Forchheimer, PowerLaw
from physics.flow.network import FlowNetwork


class EdgeSplit(SplitProblem):
    """A network at its parameters; all its systems share the pattern and the symbolic analysis of its Hessian.

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
        heads = self.problem.constraints.expand(u, self.boundary)[:, 0]
        return heads[self.cells[:, 1]] - heads[self.cells[:, 0]]

    def first_slope(self) -> Tensor:
        return self.law.secant(torch.full((len(self.cells),), self.typical, dtype=torch.float64))

    def matrix(self, slope: Tensor) -> Sparse:
        scatter = self.problem.scatter
        sums = scatter.zeros(slope)
        scatter.add(sums, (slope[:, None] * self._signs).reshape(1, -1, 2, 2))
        return Sparse(scatter.pattern, scatter.finish(sums), self.problem.structure)

    def divergence(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self._balance(fluxes))

    def imbalance(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self._balance(fluxes) - self.inflow)

    def _balance(self, fluxes: Tensor) -> Tensor:
        """What leaves each node (nodes,) against the direction of the edges."""
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
