"""Isotropic hyperelastic laws: functions of the invariants of C = F^T F, or of the principal stretches.

Of the isochoric ones the distortional part depends on the isochoric stretches J^(-1/3) lambda_i alone, and the volumetric
part is K/2 (J - 1)^2 with K = params["bulk_modulus"], in Pa. Invariants are counted from their values at rest, in terms of
H = F - I: about rest the linear terms of an energy cancel, and what is left of them would drown in the rounding of 3.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.law import ElasticLaw, SplitElasticLaw
from physics.constitutive.kinematics import displacement_gradient
from physics.discretisation.matrices import second_invariant, volume_change
from physics.local.parameters import LawParameter, LawParameters

BULK = LawParameters(LawParameter("bulk_modulus", "Pa", lower=0.0, volumetric=True, description="K of K/2 (J - 1)^2"))


class Hyperelastic(ElasticLaw):
    """An isotropic law of finite strain; its energy is also known as a function of the principal stretches."""

    def energy_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        """The energy (...) of principal stretches (..., 3)."""
        return self.energy(torch.diag_embed(stretches), params)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        """An energy (...) of principal stretches (..., 3) that differs from the law's by a function of their product."""
        return self.energy_of_stretches(stretches, params)


class Isochoric(SplitElasticLaw, Hyperelastic):
    """Adds the volumetric energy K/2 (J - 1)^2."""

    @abstractmethod
    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        """The distortional energy (...) of principal stretches (..., 3)."""

    def volumetric(self, change: Tensor, params: Params) -> Tensor:
        return 0.5 * params["bulk_modulus"] * change**2

    def energy_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        return self.distortion_of_stretches(stretches, params) + self.volumetric(stretches.prod(-1) - 1.0, params)


class OfInvariants(Isochoric):
    """A function of the isochoric invariants I1 = J^(-2/3) tr C and I2 = J^(-4/3) (tr(C)^2 - tr(C^2)) / 2."""

    @abstractmethod
    def energy_of_invariants(self, i1: Tensor, i2: Tensor, params: Params) -> Tensor:
        """W (...) of I1 - 3 and I2 - 3 (...)."""

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        return self.energy_of_invariants(*isochoric_invariants(x), params)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        squares = isochoric(stretches) ** 2
        i1 = squares.sum(-1)
        i2 = (squares * squares.roll(1, -1)).sum(-1)
        return self.energy_of_invariants(i1 - 3.0, i2 - 3.0, params)


def isochoric_invariants(f: Tensor) -> tuple[Tensor, Tensor]:
    """I1 - 3 and I2 - 3 (...) of F (..., 3, 3)."""
    h = displacement_gradient(f)
    log = torch.log1p(volume_change(h))
    strain = h + h.mT + h.mT @ h  # C - I
    first = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    second = 2.0 * first + second_invariant(strain)
    return _reduced(first, -2.0 / 3.0 * log), _reduced(second, -4.0 / 3.0 * log)


def _reduced(excess: Tensor, log_factor: Tensor) -> Tensor:
    """e^log_factor (3 + excess) - 3."""
    return excess + torch.expm1(log_factor) * (3.0 + excess)


def isochoric(stretches: Tensor) -> Tensor:
    """J^(-1/3) lambda_i (..., 3)."""
    return stretches * stretches.prod(-1, keepdim=True) ** (-1.0 / 3.0)


def isochoric_square(f: Tensor) -> Tensor:
    """J^(-2/3) F^T F (..., 3, 3)."""
    log = torch.log1p(volume_change(displacement_gradient(f)))
    return (f.mT @ f) * torch.exp(-2.0 / 3.0 * log)[..., None, None]
