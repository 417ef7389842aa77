"""Elastic laws of the whole strain beside inelastic ones of small increments: a flux over F that knows each zone's law."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.inelastic.law import Values
from physics.constitutive.inelastic.zoned import ZonedLaw
from physics.constitutive.kinematics import Strain, displacement_gradient
from physics.constitutive.mandel import from_matrix, to_matrix
from physics.discretisation.matrices import inverse_and_determinant
from physics.solids.material_points import MaterialFlux


class ZonedFlux(MaterialFlux):
    """The nominal stress P (cells, points, 3, 3) for F: of elastic laws that of F, of the others that of the small strain.

    A small-strain law's stress is taken as the nominal one, as it is in a body that is wholly of that law.
    """

    measured = Strain.DEFORMATION_GRADIENT

    def __init__(self, law: ZonedLaw) -> None:
        super().__init__(law)
        self.zoned = law

    def strain(self, x: Tensor) -> Tensor:
        return from_matrix(displacement_gradient(x))

    def state(self, x: Tensor, params: Params) -> Tensor:
        """The new state, whose stress is Cauchy's where a law sees F."""
        found = super().state(self.strain(x), params)
        stress = found[..., :6]
        for inside, law, seen, values in self._zones(x, params):
            own = law.stress(seen, values)
            if law.strain is Strain.DEFORMATION_GRADIENT:
                own = own @ seen.mT / inverse_and_determinant(seen)[1][..., None, None]
            stress = torch.where(inside[..., None], from_matrix(own), stress)
        return torch.cat((stress, found[..., 6:]), -1)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        found = to_matrix(super().state(self.strain(x), params)[..., :6])
        for inside, law, seen, values in self._zones(x, params):
            own = law.stress(seen, values)
            if law.strain is Strain.SMALL:
                own = 0.5 * (own + own.mT)
            found = torch.where(inside[..., None, None], own, found)
        return found

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        units = from_matrix(torch.eye(9, dtype=x.dtype, device=x.device).reshape(9, 3, 3))
        small = super().tangent(self.strain(x), params, 1)
        found = (units @ small @ units.mT).unflatten(-1, (3, 3)).unflatten(-3, (3, 3))
        for inside, law, seen, values in self._zones(x, params):
            own = law.tangent(seen, values, 2)
            if law.strain is Strain.SMALL:
                own = 0.5 * (own + own.transpose(-4, -3))
                own = 0.5 * (own + own.transpose(-2, -1))
            found = torch.where(inside[..., None, None, None, None], own, found)
        return found

    def _zones(self, x: Tensor, params: Params) -> Iterator[tuple[Tensor, ElasticLaw, Tensor, Values]]:
        """Where each elastic law holds (cells, points), the law, what it sees (at rest elsewhere), and its parameters."""
        law = params["law"]
        rest = torch.eye(3, dtype=x.dtype, device=x.device)
        for number, elastic in self.zoned.elastic.items():
            inside = (law["zone"] == number).expand(x.shape[:-2])
            seen = torch.where(inside[..., None, None], x, rest)
            if elastic.strain is Strain.SMALL:
                gradient = displacement_gradient(seen)
                seen = 0.5 * (gradient + gradient.mT)
            yield inside, elastic, seen, self.zoned.values_of(number, law)
