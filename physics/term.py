"""One term of a local energy: a density seen through an operator, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.density import Density, Measure
from physics.local_operator import LocalOperator, local_force, local_matrix, local_state


@dataclass(frozen=True, eq=False)
class Term:
    """sum over cells and points of w psi(M B u + offset, params[name]).

    The functions below take cell values (e, A, C), B (e, A, Q, m), w (e, Q) and the term's parameters for
    these cells.
    """

    name: str
    operator: LocalOperator
    density: Density
    measure: Measure

    def energy(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The energy of the cells, one number."""
        density = self.density.energy(self.measure.state(local_state(local, matrix)), params)
        if density.dim() > weights.dim():
            raise InputError(
                f"the density of '{self.name}' returned shape {tuple(density.shape)}; "
                f"expected one value per point, {tuple(weights.shape)}"
            )
        return (weights * density).sum()

    def force(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The derivative of the energy with respect to the cell values, (e, A, C)."""
        stress = self.density.stress(self.measure.state(local_state(local, matrix)), params)
        stress = self.measure.pull_stress(stress, local.shape[-1])
        return local_force(weights[..., None, None] * stress, matrix)

    def work(self, local: Tensor, moved: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The work of the forces on cell values `moved` (e, A, C), one number."""
        stress = self.density.stress(self.measure.state(local_state(local, matrix)), params)
        stress = self.measure.pull_stress(stress, local.shape[-1])
        return (weights[..., None, None] * stress * local_state(moved, matrix)).sum()

    def stiffness(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The second derivatives (e, A, C, C, A), in the order of `local_matrix`."""
        state = self.measure.state(local_state(local, matrix))
        tangent = self.density.tangent(state, params, len(self.measure.shape))
        tangent = self.measure.pull_tangent(tangent, local.shape[-1])
        return local_matrix(weights[..., None, None, None, None] * tangent, matrix)
