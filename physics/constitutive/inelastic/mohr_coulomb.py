"""Mohr-Coulomb perfect plasticity, non-associated, with exact returns to plane, edges and apex."""

from __future__ import annotations

import torch
from torch import Tensor

from physics.constitutive.inelastic.drucker_prager import FRICTIONAL
from physics.constitutive.inelastic.law import ReturnMapping, Values
from physics.constitutive.inelastic.yield_planes import PlaneReturn, YieldPlanes
from physics.constitutive.lame import ELASTIC, LameParameters
from physics.constitutive.spectral import isotropic_derivative, isotropic_function, principal_values

RETURN = PlaneReturn()


class MohrCoulomb(ReturnMapping):
    """(s1 - s3) + (s1 + s3) sin φ = 2 c cos φ, with flow of the same form at the dilatancy angle.

    The return is linear in the ordered principal trial stresses (de Souza Neto et al. 2008, section 8.2; Clausen et al.
    2006). First derivatives are exact, at equal principal stresses too; second derivatives raise BilevelError.
    """

    parameters = ELASTIC + FRICTIONAL

    def yield_function(self, stress: Tensor, params: Values) -> Tensor:
        """f = (s1 - s3) + (s1 + s3) sin φ - 2 c cos φ (*batch,), Pa."""
        principal = principal_values(stress)
        return _planes(params).value(principal[..., 0], principal[..., 2])

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        trial = previous + LameParameters.of(params).stress(increment)
        return isotropic_function(RETURN, trial, _constants(params, trial))

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        values = {name: torch.as_tensor(value).detach() for name, value in params.items()}
        moduli = LameParameters.of(values)
        trial = previous.detach() + moduli.stress(increment.detach())
        returned = isotropic_derivative(RETURN, trial, _constants(values, trial), False)
        rows = LameParameters(moduli.mu.unsqueeze(-1), moduli.lame_lambda.unsqueeze(-1))
        return rows.stress(
            returned
        )  # row by row: a derivative in the trial stress times the stiffness, which is symmetric


def _planes(params: Values) -> YieldPlanes:
    friction, dilatancy = (torch.as_tensor(params[name]) for name in ("friction_angle", "dilatancy_angle"))
    moduli = LameParameters.of(params)
    strength = 2.0 * torch.as_tensor(params["cohesion"]) * torch.cos(friction)
    return YieldPlanes(
        torch.sin(friction), torch.sin(dilatancy), strength, *map(torch.as_tensor, (moduli.mu, moduli.lame_lambda))
    )


def _constants(params: Values, stress: Tensor) -> Tensor:
    """Those of the planes (..., 5), as many as there are stresses (..., 6)."""
    return torch.stack([constant.expand(stress.shape[:-1]) for constant in _planes(params)], -1)
