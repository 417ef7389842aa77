"""The two elastic constants of an isotropic solid, in whichever pair they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bilevel.report import InputError


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
        """From a dictionary that names one of the three pairs; raises InputError for anything else."""
        pairs = {
            ("mu", "lame_lambda"): LameParameters,
            ("youngs_modulus", "poissons_ratio"): LameParameters.from_young,
            ("bulk_modulus", "shear_modulus"): LameParameters.from_bulk,
        }
        given = set(params) if isinstance(params, Mapping) else set()
        for (first, second), make in pairs.items():
            if given == {first, second}:
                return make(params[first], params[second])
        expected = ", or ".join(f"{first} and {second}" for first, second in pairs)
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


def per_matrix(value: Tensor) -> Tensor:
    """A field (...) as (..., 1, 1), to multiply matrices."""
    return value[..., None, None]
