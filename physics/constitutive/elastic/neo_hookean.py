"""The compressible neo-Hookean solid."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import Hyperelastic
from physics.constitutive.elastic.isotropic_stiffness import isotropic_stiffness
from physics.constitutive.elastic.law import SplitElasticLaw
from physics.constitutive.kinematics import displacement_gradient
from physics.constitutive.lame import BULK_AND_SHEAR, LAME, YOUNG_AND_POISSON, LameParameters, per_matrix
from physics.discretisation.matrices import inverse_and_determinant, outer, volume_change
from physics.local.density import Cells
from physics.local.parameters import LawParameters


class NeoHookean(SplitElasticLaw, Hyperelastic):
    """psi = mu/2 (I1 - 3) - mu ln J + lambda/2 (ln J)^2; parameters: any pair that `LameParameters.of` takes, in Pa.

    Not finite (NaN) where J <= 0. Source: Simo & Pister 1984; Bonet & Wood 1997, eq. (5.28).
    """

    parameters = LawParameters(*LAME, alternatives=(YOUNG_AND_POISSON, BULK_AND_SHEAR))

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        return 0.5 * LameParameters.of(params).mu * _first_invariant(displacement_gradient(x))

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        return 0.5 * LameParameters.of(params).mu * ((stretches**2).sum(-1) - 3.0)

    def volumetric(self, change: Tensor, params: Params) -> Tensor:
        constants = LameParameters.of(params)
        log = torch.log1p(change)
        return -constants.mu * log + 0.5 * constants.lame_lambda * log**2

    def stress(self, x: Tensor, params: Params) -> Tensor:
        constants = LameParameters.of(params)
        inverted, determinant = inverse_and_determinant(x)
        factor = constants.lame_lambda * torch.log(determinant) - constants.mu
        return per_matrix(constants.mu) * x + per_matrix(factor) * inverted.mT

    def work(self, x: Tensor, rate: Tensor, params: Params, weights: Tensor) -> Tensor:
        constants = LameParameters.of(params)
        inverted, determinant = inverse_and_determinant(x)
        factor = constants.lame_lambda * torch.log(determinant) - constants.mu
        stretching, swelling = (x * rate).sum((-2, -1)), (inverted.mT * rate).sum((-2, -1))
        return (weights * (constants.mu * stretching + factor * swelling)).sum()

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        constants = LameParameters.of(params)
        inverted, determinant = inverse_and_determinant(x)
        transposed = inverted.mT.contiguous()
        factor = constants.lame_lambda * torch.log(determinant) - constants.mu
        # d(F^-T)_ij / dF_kl = - F^-T_il F^-T_kj
        volume = outer(per_matrix(constants.lame_lambda) * transposed, transposed)
        turned = outer(per_matrix(factor) * transposed, transposed).transpose(-3, -1)
        identity = torch.eye(9, dtype=x.dtype, device=x.device).reshape(3, 3, 3, 3)
        shear = per_matrix(per_matrix(constants.mu)) * identity
        return volume - turned + shear

    def energy_and_stress(self, x: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        constants = LameParameters.of(params)
        inverted, _ = inverse_and_determinant(x)
        h = displacement_gradient(x)
        log = torch.log1p(volume_change(h))
        volumetric = constants.lame_lambda * log
        energy = 0.5 * constants.mu * _first_invariant(h) + (0.5 * volumetric - constants.mu) * log
        stress = per_matrix(constants.mu) * x + per_matrix(volumetric - constants.mu) * inverted.mT
        return energy, stress

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        if cells.measure.matrix is not None:
            return super().element_matrices(x, params, cells)
        constants = LameParameters.of(params)
        inverted, determinant = inverse_and_determinant(x)
        volumetric = cells.weights * constants.lame_lambda
        shear = (cells.weights * constants.mu).expand(cells.weights.shape)
        return isotropic_stiffness(
            inverted, shear, volumetric, volumetric * torch.log(determinant) - shear, cells.matrix
        )


def _first_invariant(h: Tensor) -> Tensor:
    """F:F - 3 (...) of H = F - I: half of it cancels against ln J about rest, so it must be right to its own rounding."""
    return (h * h).sum((-2, -1)) + 2.0 * h.diagonal(dim1=-2, dim2=-1).sum(-1)
