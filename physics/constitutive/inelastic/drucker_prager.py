"""Drucker-Prager perfect plasticity with a non-associated flow and the exact return to cone and apex."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor

from bilevel.report import chosen
from physics.constitutive.inelastic.law import ReturnMapping, Values
from physics.constitutive.lame import ELASTIC, LameParameters
from physics.constitutive.mandel import deviator, identity, norm, trace
from physics.local.parameters import LawParameter, LawParameters

FRICTIONAL = LawParameters(
    LawParameter("cohesion", "Pa", lower=0.0, closed=True, description="cohesion c"),
    LawParameter("friction_angle", "rad", lower=0.0, upper=math.pi / 2, closed=True, description="friction angle"),
    LawParameter(
        "dilatancy_angle",
        "rad",
        lower=0.0,
        below="friction_angle",
        closed=True,
        description="a dilatancy angle above the friction angle would create energy",
    ),
)


class MatchedTo(Enum):
    """Which Mohr-Coulomb strength the cone reproduces."""

    COMPRESSION = "triaxial compression"
    EXTENSION = "triaxial extension"
    PLANE_STRAIN = "plane strain with associated flow"


class DruckerPrager(ReturnMapping):
    """√J2 + a I1 = k, with flow along √J2 + b I1 (Drucker & Prager 1952; de Souza Neto et al. 2008, section 8.3).

    `matched_to` says how a, k, b follow from cohesion, friction and dilatancy angle.
    """

    parameters = ELASTIC + FRICTIONAL

    def __init__(self, matched_to: MatchedTo = MatchedTo.COMPRESSION) -> None:
        self.matched_to = chosen(MatchedTo, matched_to)

    def slopes(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """a and k/c of the cone for a friction angle."""
        sine, cosine = torch.sin(angle), torch.cos(angle)
        if self.matched_to is MatchedTo.PLANE_STRAIN:
            denominator = torch.sqrt(9.0 * cosine**2 + 12.0 * sine**2)
            return sine / denominator, 3.0 * cosine / denominator
        sign = -1.0 if self.matched_to is MatchedTo.COMPRESSION else 1.0
        denominator = math.sqrt(3.0) * (3.0 + sign * sine)
        return 2.0 * sine / denominator, 6.0 * cosine / denominator

    def yield_function(self, stress: Tensor, params: Values) -> Tensor:
        """f = √J2 + a I1 - k (*batch,), Pa."""
        slope, intercept = self.slopes(torch.as_tensor(params["friction_angle"]))
        return norm(deviator(stress)) / math.sqrt(2.0) + slope * trace(stress) - intercept * params["cohesion"]

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        moduli = LameParameters.of(params)
        trial = previous + moduli.stress(increment)
        friction, intercept = self.slopes(torch.as_tensor(params["friction_angle"]))
        dilatancy, _ = self.slopes(torch.as_tensor(params["dilatancy_angle"]))
        strength = intercept * params["cohesion"]
        root_j2, first = norm(deviator(trial)) / math.sqrt(2.0), trace(trial)
        overstress = root_j2 + friction * first - strength
        multiplier = overstress / (moduli.mu + 9.0 * moduli.bulk_modulus * friction * dilatancy)
        shrunk = root_j2 - moduli.mu * multiplier
        safe_root = torch.where(root_j2 > 0, root_j2, torch.ones_like(root_j2))
        on_cone = _assemble(trial, shrunk / safe_root, first - 9.0 * moduli.bulk_modulus * dilatancy * multiplier)
        has_apex = friction > 0
        apex_trace = strength / torch.where(has_apex, friction, torch.ones_like(friction))
        at_apex = (apex_trace / 3.0 + torch.zeros_like(first)).unsqueeze(-1) * identity(trial)
        returned = torch.where((has_apex & (shrunk < 0)).unsqueeze(-1), at_apex, on_cone)
        return torch.where((overstress > 0).unsqueeze(-1), returned, trial)


def _assemble(trial: Tensor, shear_ratio: Tensor, first_invariant: Tensor) -> Tensor:
    return shear_ratio.unsqueeze(-1) * deviator(trial) + (first_invariant / 3.0).unsqueeze(-1) * identity(trial)
