"""Isotropic linear elasticity in the form that the soil models share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from physics.constitutive.inelastic.law import Values
from physics.constitutive.mandel import deviator, identity, trace
from physics.constitutive.parameters import Parameter, ParameterSet

ELASTIC = ParameterSet(
    Parameter("young_modulus", "Pa", lower=0.0, description="Young's modulus"),
    Parameter("poisson_ratio", "", lower=-1.0, upper=0.5, description="Poisson's ratio"),
)


class Moduli(NamedTuple):
    """Shear and bulk modulus, Pa."""

    shear: Tensor
    bulk: Tensor

    @staticmethod
    def of(params: Values) -> Moduli:
        """From `young_modulus` and `poisson_ratio`."""
        young, poisson = torch.as_tensor(params["young_modulus"]), torch.as_tensor(params["poisson_ratio"])
        return Moduli(young / (2.0 * (1.0 + poisson)), young / (3.0 * (1.0 - 2.0 * poisson)))

    def stress(self, strain: Tensor) -> Tensor:
        """Stress (..., 6) of an elastic strain (..., 6)."""
        shear = 2.0 * self.shear.unsqueeze(-1) * deviator(strain)
        return shear + (self.bulk * trace(strain)).unsqueeze(-1) * identity(strain)

    def strain(self, stress: Tensor) -> Tensor:
        """Elastic strain (..., 6) of a stress (..., 6)."""
        shear = deviator(stress) / (2.0 * self.shear.unsqueeze(-1))
        return shear + (trace(stress) / (9.0 * self.bulk)).unsqueeze(-1) * identity(stress)
