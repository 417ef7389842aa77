"""One volume change per element, so that nearly incompressible solids do not lock."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.elastic.law import SplitElasticLaw
from physics.discretisation.operator import LocalOperator, local_force, local_matrix, local_state
from physics.local.assembly import component_pairs
from physics.local.density import Density, FunctionDensity, Measure
from physics.local.term import Term


@dataclass(frozen=True, eq=False)
class MeanDilatation(Term):
    """sum over cells of [ sum over points w distortional(x) + V volumetric(mean volume change) ].

    The mean of J - 1 is weighted by volume; the pressure U'(mean) is one number a cell (Q1/P0, Q2/P0 ...).
    Source: Simo, Taylor & Pister 1985, with pressure and dilatation eliminated.
    """

    law: SplitElasticLaw

    @staticmethod
    def of(name: str, operator: LocalOperator, density: Density, measure: Measure) -> MeanDilatation:
        """Raises InputError for a density that does not split into distortion and volume change."""
        if not isinstance(density, SplitElasticLaw):
            raise InputError(
                f"mean_dilatation=True needs a law that splits its energy into distortion and volume change, as a SplitElasticLaw "
                f"does; {type(density).__name__} does not"
            )
        return MeanDilatation(name, operator, density, measure, density)

    @property
    def _distortion(self) -> Density:
        return FunctionDensity(self.law.distortional, event_dims=self.law.event_dims)

    def energy(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        state = self.measure.state(local_state(local, matrix))
        volume, mean = self._mean(state, weights)
        distortion = (weights * self._distortion.energy(state, params)).sum()
        return distortion + (volume * self._volumetric(mean, params)).sum()

    def force(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        state = self.measure.state(local_state(local, matrix))
        _, mean = self._mean(state, weights)
        stress = self._distortion.stress(state, params)
        stress = stress + self._pressure(mean, params)[..., None, None, None] * self._change_gradient(state)
        return local_force(weights[..., None, None] * self.measure.to_cell_stress(stress, local.shape[-1]), matrix)

    def work(self, local: Tensor, moved: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> Tensor:
        return (self.force(local, matrix, weights, params) * moved).sum()

    def energy_and_force(self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        return self.energy(local, matrix, weights, params), self.force(local, matrix, weights, params)

    def stiffness(
        self, local: Tensor, matrix: Tensor, weights: Tensor, params: Params, symmetric: bool = True
    ) -> Tensor:
        state = self.measure.state(local_state(local, matrix))
        components, planes = local.shape[-1], component_pairs(local.shape[-1], symmetric)
        volume, mean = self._mean(state, weights)
        pressure = self._pressure(mean, params)
        gradient = FunctionDensity(lambda x, _: self.law.volume_change(x))
        tangent = self._distortion.tangent(state, params, 2)
        tangent = tangent + pressure[:, None, None, None, None, None] * gradient.tangent(state, None, 2)
        tangent = self.measure.to_cell_tangent(tangent, matrix.shape[-1])
        result = local_matrix(weights[..., None, None, None, None] * tangent, matrix, planes)
        slope = torch.func.grad(lambda m: self._pressure(m, params).sum())(mean)
        swelling = self.measure.to_cell_stress(gradient.stress(state, None), components)
        swelling = local_force(weights[..., None, None] * swelling, matrix)
        scaled = (slope / volume)[:, None, None] * swelling
        return result + torch.stack([scaled[:, :, i, None] * swelling[:, None, :, k] for i, k in planes])

    def _mean(self, state: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        volume = weights.sum(-1)
        return volume, (weights * self.law.volume_change(state)).sum(-1) / volume

    def _volumetric(self, mean: Tensor, params: Params) -> Tensor:
        """The energy per volume (e,); parameters that vary within a cell are averaged there by their energies."""
        return self.law.volumetric(mean[:, None], params).mean(-1)

    def _pressure(self, mean: Tensor, params: Params) -> Tensor:
        return torch.func.grad(lambda m: self._volumetric(m, params).sum())(mean)

    def _change_gradient(self, state: Tensor) -> Tensor:
        return torch.func.grad(lambda x: self.law.volume_change(x).sum())(state)
