"""Mohr-Coulomb perfect plasticity, non-associated, with exact returns to plane, edges and apex."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from physics.constitutive.inelastic.drucker_prager import FRICTIONAL
from physics.constitutive.inelastic.law import ReturnMapping, Values
from physics.constitutive.lame import ELASTIC, LameParameters
from physics.constitutive.spectral import (
    first_derivatives_only,
    isotropic_derivative,
    isotropic_function,
    principal_values,
)

MAIN, UPPER, LOWER = (0, 2), (1, 2), (0, 1)
"""Yield planes by their (largest, smallest) principal stress: the main one, those meeting it where the two largest
principal stresses are equal (triaxial compression) and where the two smallest are (triaxial extension)."""


class MohrCoulomb(ReturnMapping):
    """(s1 - s3) + (s1 + s3) sin φ = 2 c cos φ, with flow of the same form at the dilatancy angle.

    The return is linear in the ordered principal trial stresses (de Souza Neto et al. 2008, section 8.2; Clausen et al.
    2006). First derivatives are exact, at equal principal stresses too; second derivatives raise BilevelError.
    """

    parameters = ELASTIC + FRICTIONAL

    def yield_function(self, stress: Tensor, params: Values) -> Tensor:
        """f = (s1 - s3) + (s1 + s3) sin φ - 2 c cos φ (*batch,), Pa."""
        return _Planes.of(params).value(principal_values(stress), MAIN)

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        given = (torch.as_tensor(value) for value in params.values())
        increment, previous, *values = first_derivatives_only(increment, previous, *given)
        params = dict(zip(params, values))
        trial = previous + LameParameters.of(params).stress(increment)
        return isotropic_function(lambda principal: _return(principal, params), trial)

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        constants = {name: torch.as_tensor(value).detach() for name, value in params.items()}
        moduli = LameParameters.of(constants)
        trial = previous.detach() + moduli.stress(increment.detach())
        returned = isotropic_derivative(lambda principal: _return(principal, constants), trial)
        rows = LameParameters(moduli.mu.unsqueeze(-1), moduli.lame_lambda.unsqueeze(-1))
        return rows.stress(
            returned
        )  # row by row: a derivative in the trial stress times the stiffness, which is symmetric


class _Planes(NamedTuple):
    """The yield planes and flow directions in principal stresses sorted in descending order."""

    sine: Tensor
    sine_flow: Tensor
    strength: Tensor
    cohesion: Tensor
    moduli: LameParameters

    @staticmethod
    def of(params: Values) -> _Planes:
        friction = torch.as_tensor(params["friction_angle"])
        cohesion = torch.as_tensor(params["cohesion"])
        sine_flow = torch.sin(torch.as_tensor(params["dilatancy_angle"]))
        strength = 2.0 * cohesion * torch.cos(friction)
        return _Planes(torch.sin(friction), sine_flow, strength, cohesion, LameParameters.of(params))

    def value(self, principal: Tensor, plane: tuple[int, int]) -> Tensor:
        high, low = principal[..., plane[0]], principal[..., plane[1]]
        return (high - low) + (high + low) * self.sine - self.strength

    def relaxation(self, plane: tuple[int, int], like: Tensor) -> Tensor:
        """Stress lost per unit plastic multiplier of a plane: elasticity times flow direction, (*batch, 3)."""
        base = 2.0 * self.moduli.lame_lambda * self.sine_flow
        stiff = 2.0 * self.moduli.mu
        entries = [base, base, base]
        entries[plane[0]] = base + stiff * (1.0 + self.sine_flow)
        entries[plane[1]] = base - stiff * (1.0 - self.sine_flow)
        return torch.stack([entry + torch.zeros_like(like[..., 0]) for entry in entries], -1)

    def apex(self, like: Tensor) -> Tensor:
        """The hydrostatic tension c cot φ as three principal stresses (infinite strength gives the trial a far apex)."""
        safe = torch.where(self.sine > 0, self.sine, torch.ones_like(self.sine))
        return (0.5 * self.strength / safe).unsqueeze(-1) + torch.zeros_like(like)


def _return(trial: Tensor, params: Values) -> Tensor:
    """Principal stresses (*batch, 3), descending, after the return of descending trial stresses."""
    planes = _Planes.of(params)
    relaxation = {plane: planes.relaxation(plane, trial) for plane in (MAIN, UPPER, LOWER)}
    main = _to_plane(trial, planes, relaxation[MAIN])
    wants_upper = main[..., 1] > main[..., 0]
    upper, lower = (_to_edge(trial, planes, second, relaxation[MAIN], relaxation[second]) for second in (UPPER, LOWER))
    edge = torch.where(wants_upper.unsqueeze(-1), upper, lower)
    off_plane = wants_upper | (main[..., 1] < main[..., 2])
    returned = torch.where(off_plane.unsqueeze(-1), edge, main)
    beyond = (planes.sine > 0) & (returned[..., 0] + returned[..., 1] + returned[..., 2] > planes.apex(trial).sum(-1))
    returned = torch.where(beyond.unsqueeze(-1), planes.apex(trial), returned)
    return torch.where((planes.value(trial, MAIN) > 0).unsqueeze(-1), returned, trial)


def _to_plane(trial: Tensor, planes: _Planes, relaxation: Tensor) -> Tensor:
    drop = planes.value(relaxation, MAIN) + planes.strength
    return trial - (planes.value(trial, MAIN) / drop).unsqueeze(-1) * relaxation


def _to_edge(trial: Tensor, planes: _Planes, second: tuple[int, int], one: Tensor, two: Tensor) -> Tensor:
    """The return along two flow directions at once, onto the line where the main and the second plane meet."""
    a = planes.value(one, MAIN) + planes.strength
    b = planes.value(two, MAIN) + planes.strength
    c = planes.value(one, second) + planes.strength
    d = planes.value(two, second) + planes.strength
    f, g = planes.value(trial, MAIN), planes.value(trial, second)
    determinant = a * d - b * c
    first = (f * d - g * b) / determinant
    last = (g * a - f * c) / determinant
    return trial - first.unsqueeze(-1) * one - last.unsqueeze(-1) * two
