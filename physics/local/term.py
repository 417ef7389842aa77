"""One term of a local energy: a density seen through an operator, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.discretisation.operator import LocalOperator, local_force, local_state
from physics.local.assembly import component_pairs
from physics.local.density import Cells, Density, Measure


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

    @property
    def names(self) -> tuple[str, ...]:
        """The entries of the parameters that it depends on."""
        return (self.name,)

    def own(self, params: Params) -> Params:
        """Its own parameters among those of all terms."""
        return params.get(self.name)

    def energy(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The energy of the cells, one number."""
        density = self.density.energy(self.measure.state(local_state(local, matrix)), params)
        self._require_one_value(density, weights)
        return (weights * density).sum()

    def force(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The derivative of the energy with respect to the cell values, (e, A, C)."""
        stress = self.density.stress(self.measure.state(local_state(local, matrix)), params)
        stress = self.measure.to_cell_stress(stress, local.shape[-1])
        return local_force(weights[..., None, None] * stress, matrix)

    def work(self, local: Tensor, moved: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        """The work of the forces on cell values `moved` (e, A, C), one number."""
        state, rate = self.measure.state(local_state(local, matrix)), self.measure.rate(local_state(moved, matrix))
        return self.density.work(state, rate, params, weights)

    def energy_and_force(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Both of the above, where the density shares work between them."""
        density, stress = self.density.energy_and_stress(self.measure.state(local_state(local, matrix)), params)
        stress = self.measure.to_cell_stress(stress, local.shape[-1])
        self._require_one_value(density, weights)
        return (weights * density).sum(), local_force(weights[..., None, None] * stress, matrix)

    def stiffness(
        self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params, symmetric: bool = True
    ) -> Tensor:
        """The second derivatives as planes (P, e, A, A) of pairs of components, see `Scatter`."""
        state = self.measure.state(local_state(local, matrix))
        cells = Cells(self.measure, weights, matrix, component_pairs(local.shape[-1], symmetric))
        return self.density.element_matrices(state, params, cells)

    def _require_one_value(self, density: Tensor, weights: Tensor) -> None:
        if density.dim() > weights.dim():
            raise InputError(
                f"the density of '{self.name}' returned shape {tuple(density.shape)}; "
                f"expected one value per point, {tuple(weights.shape)}"
            )
