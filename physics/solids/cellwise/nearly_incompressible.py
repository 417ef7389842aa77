"""Solids with mean dilatation whose Hessian is made of integrals that the mesh has once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from physics.constitutive.elastic.law import SplitElasticLaw
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.matrices import determinant
from physics.solids.cellwise.body import LinearisedSolid
from physics.solids.solid import ElasticSolid


class NearlyIncompressibleSolid(ElasticSolid):
    """A `Solid` with mean dilatation, in plane strain or in space.

    law: an elastic law of distortion and volume change. upright: the energy is infinite where a point is turned inside out,
    which the mean dilatation of its cell may hide: bricks otherwise have equilibria, even stable ones, with corners inside
    out.
    """

    def __init__(
        self, mesh: Mesh, law: SplitElasticLaw, constraints: Sequence[Constraint], *, upright: bool = False
    ) -> None:
        kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else Kinematics.THREE_DIMENSIONAL
        super().__init__(mesh, law, kinematics, constraints, mean_dilatation=True)
        self.upright = upright

    def value(self, u: Tensor, params: Params) -> Tensor:
        return self._guarded(super().value(u, params), u, params)

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        value, residual = super().value_and_residual(u, params)
        return self._guarded(value, u, params), residual

    def _guarded(self, value: Tensor, u: Tensor, params: Params) -> Tensor:
        if not self.upright:
            return value
        return torch.where((determinant(self.by_cells.gradients(u, params)) > 0.0).all(), value, torch.inf)

    @torch.no_grad()
    def assembled(self, full: Tensor, params: Params, change: Callable[[Tensor], Tensor] | None = None) -> Sparse:
        cells, law = self.by_cells, self.by_cells.law(params)
        gradients = cells.gradients_of(full)
        theta = cells.mean(determinant(gradients))
        return LinearisedSolid(cells, law, gradients, *law.pressure_and_slope(theta), theta).matrix(change)
