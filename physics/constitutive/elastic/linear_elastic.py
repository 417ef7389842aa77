"""Linear isotropic elasticity."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.law import SplitElasticLaw
from physics.constitutive.kinematics import Strain
from physics.constitutive.lame import ELASTIC, LameParameters, per_matrix
from physics.discretisation.matrices import outer


class LinearElastic(SplitElasticLaw):
    """psi = mu e:e + lambda/2 (tr e)^2 of the small strain e; parameters: any pair of `LameParameters.of`, in Pa."""

    strain = Strain.SMALL
    parameters = ELASTIC

    def constants(self, params: Params) -> LameParameters:
        return LameParameters.of(params)

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        return self.constants(params).mu * (x * x).sum((-2, -1))

    def volumetric(self, change: Tensor, params: Params) -> Tensor:
        return 0.5 * self.constants(params).lame_lambda * change**2

    def stress(self, x: Tensor, params: Params) -> Tensor:
        constants = self.constants(params)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        return 2.0 * per_matrix(constants.mu) * x + per_matrix(constants.lame_lambda * self.volume_change(x)) * identity

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        constants = self.constants(params)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        same = torch.einsum("ik,jl->ijkl", identity, identity)
        volume = outer(identity, identity)
        matrix = (
            2.0 * per_matrix(per_matrix(constants.mu)) * same + per_matrix(per_matrix(constants.lame_lambda)) * volume
        )
        return matrix.expand(*x.shape[:-2], *matrix.shape[-4:])

    def plane_stress(self) -> LinearElastic:
        return _PlaneStress()


class _PlaneStress(LinearElastic):
    def constants(self, params: Params) -> LameParameters:
        return LameParameters.of(params).plane_stress
