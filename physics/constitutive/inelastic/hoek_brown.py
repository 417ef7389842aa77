"""The generalised Hoek-Brown strength of rock masses, and the Mohr-Coulomb line that touches it."""

from __future__ import annotations

import torch
from torch import Tensor

from physics.constitutive.inelastic.law import Values
from physics.constitutive.law import Law
from physics.local.parameters import LawParameter, LawParameters


class HoekBrown(Law):
    """s1 = s3 + sci (mb s3/sci + s)^a, compression positive (Hoek, Carranza-Torres & Corkum 2002).

    All stresses Pa and compression positive, as rock mechanics writes the criterion.
    """

    parameters = LawParameters(
        LawParameter("uniaxial_strength", "Pa", lower=0.0, description="uniaxial compressive strength of intact rock"),
        LawParameter("intact_constant", "", lower=0.0, description="mi, the material constant of intact rock"),
        LawParameter(
            "geological_strength_index", "", lower=0.0, upper=100.0, closed=True, description="GSI of the rock mass"
        ),
        LawParameter(
            "disturbance", "", lower=0.0, upper=1.0, closed=True, description="disturbance factor D by blasting"
        ),
    )

    def constants(self, params: Values) -> tuple[Tensor, Tensor, Tensor]:
        """mb, s and a of the rock mass."""
        index, disturbance = params["geological_strength_index"], params["disturbance"]
        reduced = params["intact_constant"] * torch.exp((index - 100.0) / (28.0 - 14.0 * disturbance))
        fracture = torch.exp((index - 100.0) / (9.0 - 3.0 * disturbance))
        exponent = 0.5 + (torch.exp(-index / 15.0) - torch.exp(torch.as_tensor(-20.0 / 3.0))) / 6.0
        return reduced, fracture, exponent

    def strength(self, confinement: Tensor, params: Values) -> Tensor:
        """Major principal stress at failure for the minor one (not below the tensile strength)."""
        mb, s, a = self.constants(params)
        strength = params["uniaxial_strength"]
        return confinement + strength * (mb * confinement / strength + s).clamp_min(0.0) ** a

    def tensile_strength(self, params: Values) -> Tensor:
        """The tension, as a positive number, at which the criterion ends."""
        mb, s, _ = self.constants(params)
        return s * params["uniaxial_strength"] / mb

    def tangent_mohr_coulomb(self, confinement: Tensor, params: Values) -> tuple[Tensor, Tensor]:
        """Friction angle (rad) and cohesion (Pa) of the Mohr-Coulomb line that touches the criterion at a confinement."""
        mb, s, a = self.constants(params)
        strength = params["uniaxial_strength"]
        slope = 1.0 + a * mb * (mb * confinement / strength + s) ** (a - 1.0)
        intercept = self.strength(confinement, params) - slope * confinement
        return torch.asin((slope - 1.0) / (slope + 1.0)), intercept / (2.0 * torch.sqrt(slope))
