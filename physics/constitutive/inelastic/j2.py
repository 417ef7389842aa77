"""J2 (von Mises) plasticity at small strains with isotropic hardening, by the implicit radial return."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from physics.constitutive.inelastic.elasticity import ELASTIC, Moduli
from physics.constitutive.inelastic.law import Material, Values
from physics.constitutive.mandel import deviator, identity, norm, trace
from physics.constitutive.parameters import Parameter, ParameterSet


class Hardening(ABC):
    """The flow stress as a function of the equivalent plastic strain."""

    parameters: ClassVar[ParameterSet]

    @abstractmethod
    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        """Pa, for equivalent plastic strains (*batch,) >= 0."""


class LinearHardening(Hardening):
    """yield_stress + hardening_modulus * strain."""

    parameters = ParameterSet(
        Parameter("yield_stress", "Pa", lower=0.0, description="initial yield stress"),
        Parameter("hardening_modulus", "Pa", lower=0.0, closed=True, description="plastic tangent modulus"),
    )

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        return params["yield_stress"] + params["hardening_modulus"] * plastic_strain


class Voce(Hardening):
    """yield_stress + saturation_stress (1 - exp(-saturation_rate * strain)) (Voce 1948)."""

    parameters = ParameterSet(
        Parameter("yield_stress", "Pa", lower=0.0, description="initial yield stress"),
        Parameter(
            "saturation_stress", "Pa", lower=0.0, closed=True, description="rise of the flow stress at saturation"
        ),
        Parameter("saturation_rate", "", lower=0.0, description="how fast the flow stress saturates with strain"),
    )

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        rise = -torch.expm1(-params["saturation_rate"] * plastic_strain)
        return params["yield_stress"] + params["saturation_stress"] * rise


class Swift(Hardening):
    """yield_stress (1 + strain/reference_strain)^exponent (Swift 1952)."""

    parameters = ParameterSet(
        Parameter("yield_stress", "Pa", lower=0.0, description="initial yield stress"),
        Parameter("reference_strain", "", lower=0.0, description="strain at which hardening bends"),
        Parameter("hardening_exponent", "", lower=0.0, upper=1.0, closed=True, description="hardening exponent n"),
    )

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        # A trial iterate may be negative; the law is continued linearly there.
        base = 1.0 + plastic_strain.clamp_min(0.0) / params["reference_strain"]
        rising = params["yield_stress"] * base ** params["hardening_exponent"]
        slope = params["yield_stress"] * params["hardening_exponent"] / params["reference_strain"]
        return rising + slope * plastic_strain.clamp_max(0.0)


class J2Plasticity(Material):
    """√(3/2) |dev stress| = flow stress(equivalent plastic strain), associated (Simo & Hughes 1998, section 3.3).

    State behind the stress: the equivalent plastic strain.
    """

    internal = ("plastic_strain",)
    units = (1e-3,)

    def __init__(self, hardening: Hardening) -> None:
        self.hardening = hardening
        self.parameters = ELASTIC + hardening.parameters  # type: ignore[misc]

    def initial_state(self, like: Tensor) -> Tensor:
        """The virgin state (*batch, 7) of a batch shaped like `like` (*batch,)."""
        return torch.zeros(*like.shape, self.size, dtype=like.dtype, device=like.device)

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        moduli = Moduli.of(params)
        trial = previous[..., :6] + moduli.stress(increment)
        trial_size = math.sqrt(1.5) * norm(deviator(trial))
        old, new = previous[..., 6], state[..., 6]
        plastic = trial_size > self.hardening.flow_stress(old, params)
        safe_size = torch.where(plastic, trial_size, torch.ones_like(trial_size))
        shrink = torch.where(plastic, 1.0 - 3.0 * moduli.shear * (new - old) / safe_size, torch.ones_like(safe_size))
        returned = shrink.unsqueeze(-1) * deviator(trial) + (trace(trial) / 3.0).unsqueeze(-1) * identity(trial)
        overstress = trial_size - 3.0 * moduli.shear * (new - old) - self.hardening.flow_stress(new, params)
        of_strain = torch.where(plastic, overstress / (3.0 * moduli.shear), old - new)
        of_stress = (state[..., :6] - returned) / (2.0 * moduli.shear.unsqueeze(-1))
        return torch.cat([of_stress, of_strain.unsqueeze(-1)], -1)

    def plastic_increment(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return increment - Moduli.of(params).strain(state[..., :6] - previous[..., :6])
