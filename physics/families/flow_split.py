"""Nonlinear flow as a split problem: what edges of networks and cells of meshes share."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from bilevel.acceleration.cellwise.split import SplitProblem
from bilevel.linalg.operator import Sparse
from physics.local.energy import LocalEnergy


class FlowSplit(SplitProblem):
    """Flow at its parameters; all its systems share the pattern and the symbolic analysis of the problem's Hessian.

    boundary: the parameters of held heads, if any. inflow (nodes,): what wells and sources bring.
    """

    problem: LocalEnergy
    boundary: dict[str, Tensor] | None
    inflow: Tensor

    @abstractmethod
    def element_matrices(self, slope: Tensor) -> Tensor:
        """B^T slope B of each cell (E, A, A)."""

    @abstractmethod
    def balance(self, fluxes: Tensor) -> Tensor:
        """What leaves each node (nodes,) against the direction of the gradients."""

    def heads(self, u: Tensor) -> Tensor:
        """The heads (nodes,) at u (n,)."""
        return self.problem.constraints.expand(u, self.boundary)[:, 0]

    def matrix(self, slope: Tensor) -> Sparse:
        scatter = self.problem.scatter
        sums = scatter.zeros(slope)
        scatter.add(sums, self.element_matrices(slope)[None])
        return Sparse(scatter.pattern, scatter.finish(sums), self.problem.structure)

    def divergence(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self.balance(fluxes))

    def imbalance(self, fluxes: Tensor) -> Tensor:
        return self.problem.constraints.reduce(self.balance(fluxes) - self.inflow)
