"""Isotropic hyperelastic materials: functions of the invariants of C = F^T F, or of the principal stretches.

The distortional part of all but the neo-Hookean solid depends on the isochoric stretches J^(-1/3) lambda_i alone,
and the volumetric part is K/2 (J - 1)^2 with K = params["bulk_modulus"], in Pa.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.law import Material
from physics.discretisation.matrices import determinant


class Hyperelastic(Material):
    """An isotropic material of finite strain; its energy is also known as a function of the principal stretches."""

    @abstractmethod
    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        """The distortional energy (...) of principal stretches (..., 3)."""

    def energy_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        """The energy (...) of principal stretches (..., 3)."""
        return self.distortion_of_stretches(stretches, params) + self.volumetric(stretches.prod(-1), params)


class Isochoric(Hyperelastic):
    """Adds the volumetric energy K/2 (J - 1)^2."""

    def volumetric(self, dilatation: Tensor, params: Params) -> Tensor:
        return 0.5 * params["bulk_modulus"] * (dilatation - 1.0) ** 2


class OfInvariants(Isochoric):
    """A function W(I1, I2) of the isochoric invariants I1 = J^(-2/3) tr C, I2 = J^(-4/3) (tr(C)^2 - tr(C^2)) / 2."""

    @abstractmethod
    def energy_of_invariants(self, i1: Tensor, i2: Tensor, params: Params) -> Tensor:
        """W (...) of the isochoric invariants (...)."""

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        c = x.mT @ x
        trace = (x * x).sum((-2, -1))
        factor = determinant(x) ** (-2.0 / 3.0)
        i2 = 0.5 * (trace**2 - (c * c).sum((-2, -1))) * factor**2
        return self.energy_of_invariants(trace * factor, i2, params)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        squares = isochoric(stretches) ** 2
        i1 = squares.sum(-1)
        i2 = (squares * squares.roll(1, -1)).sum(-1)
        return self.energy_of_invariants(i1, i2, params)


def isochoric(stretches: Tensor) -> Tensor:
    """J^(-1/3) lambda_i (..., 3)."""
    return stretches * stretches.prod(-1, keepdim=True) ** (-1.0 / 3.0)


def isochoric_square(f: Tensor) -> Tensor:
    """J^(-2/3) F^T F (..., 3, 3)."""
    return (f.mT @ f) * (determinant(f) ** (-2.0 / 3.0))[..., None, None]


def stretch_powers(stretches: Tensor, exponents: Tensor) -> Tensor:
    """Sums over i of lambda_i^a - 1, (..., N), for stretches (..., 3) and exponents a (..., N)."""
    return torch.expm1(exponents[..., None] * torch.log(stretches)[..., None, :]).sum(-1)
