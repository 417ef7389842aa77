"""The two elastic constants of an isotropic solid, in whichever pair they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.mandel import identity, trace
from physics.local.parameters import LawParameter, LawParameters

YOUNG_AND_POISSON = LawParameters(
    LawParameter("youngs_modulus", "Pa", lower=0.0, description="Young's modulus"),
    LawParameter("poissons_ratio", "", lower=-1.0, upper=0.5, description="Poisson's ratio"),
)
LAME = LawParameters(
    LawParameter("mu", "Pa", lower=0.0, description="shear modulus"),
    LawParameter("lame_lambda", "Pa", log=True, volumetric=True, description="first Lame parameter"),
)
BULK_AND_SHEAR = LawParameters(
    LawParameter("bulk_modulus", "Pa", lower=0.0, volumetric=True, description="bulk modulus"),
    LawParameter("shear_modulus", "Pa", lower=0.0, description="shear modulus"),
)
ELASTIC = LawParameters(*YOUNG_AND_POISSON, alternatives=(LAME, BULK_AND_SHEAR))
"""Isotropic elasticity as engineers write it; the other pairs of constants say the same."""


@dataclass(frozen=True)
class LameParameters:
    """mu (shear modulus) and lame_lambda, in Pa; numbers or tensors of any shape."""

    mu: Any
    lame_lambda: Any

    @staticmethod
    def from_young(youngs_modulus: Any, poissons_ratio: Any) -> LameParameters:
        """From Young's modulus E and Poisson's ratio nu: mu = E / 2(1+nu), lambda = E nu / (1+nu)(1-2nu)."""
        mu = youngs_modulus / (2.0 * (1.0 + poissons_ratio))
        return LameParameters(mu, 2.0 * mu * poissons_ratio / (1.0 - 2.0 * poissons_ratio))

    @staticmethod
    def from_bulk(bulk_modulus: Any, shear_modulus: Any) -> LameParameters:
        """From bulk modulus K and shear modulus G: lambda = K - 2 G / 3."""
        return LameParameters(shear_modulus, bulk_modulus - 2.0 * shear_modulus / 3.0)

    @staticmethod
    def of(params: Mapping[str, Any]) -> LameParameters:
        """From parameters that name one of the three pairs, among others; raises InputError for anything else."""
        pairs = (
            (LAME, LameParameters),
            (YOUNG_AND_POISSON, LameParameters.from_young),
            (BULK_AND_SHEAR, LameParameters.from_bulk),
        )
        known = {name for pair, _ in pairs for name in pair.names}
        given = set(params) & known if isinstance(params, Mapping) else set()
        for pair, make in pairs:
            if given == set(pair.names):
                return make(*(params[name] for name in pair.names))
        expected = ", or ".join(" and ".join(pair.names) for pair, _ in pairs)
        raise InputError(f"elastic constants: expected {expected}; got {', '.join(sorted(given)) or 'none'}")

    @property
    def youngs_modulus(self) -> Any:
        return self.mu * (3.0 * self.lame_lambda + 2.0 * self.mu) / (self.lame_lambda + self.mu)

    @property
    def poissons_ratio(self) -> Any:
        return self.lame_lambda / (2.0 * (self.lame_lambda + self.mu))

    @property
    def bulk_modulus(self) -> Any:
        return self.lame_lambda + 2.0 * self.mu / 3.0

    @property
    def plane_stress(self) -> LameParameters:
        """The constants that make the plane problem one of plane stress: lambda* = 2 lambda mu / (lambda + 2 mu)."""
        return LameParameters(self.mu, 2.0 * self.lame_lambda * self.mu / (self.lame_lambda + 2.0 * self.mu))

    def stress(self, strain: Tensor) -> Tensor:
        """The stress (..., 6) of a small elastic strain (..., 6), both Mandel vectors."""
        mu, lame_lambda = torch.as_tensor(self.mu).unsqueeze(-1), torch.as_tensor(self.lame_lambda).unsqueeze(-1)
        return 2.0 * mu * strain + lame_lambda * trace(strain).unsqueeze(-1) * identity(strain)

    def strain(self, stress: Tensor) -> Tensor:
        """The small elastic strain (..., 6) of a stress (..., 6), both Mandel vectors."""
        mu, ratio = torch.as_tensor(self.mu).unsqueeze(-1), torch.as_tensor(self.poissons_ratio).unsqueeze(-1)
        volume = ratio / (1.0 + ratio) * trace(stress).unsqueeze(-1) * identity(stress)
        return (stress - volume) / (2.0 * mu)


def per_matrix(value: Tensor) -> Tensor:
    """A field (...) as (..., 1, 1), to multiply matrices."""
    return value[..., None, None]
